"""Starts the gateway: ``python -m gateway``."""

import asyncio
import gc
import sys

# Looking for garbage meanwhile would take a seventh of the time until we serve; see servicekit.gc_tuning.
gc.disable()

from pydantic import ValidationError

from gateway.app import create_app
from gateway.draining import DrainingServer
from gateway.http_protocol import server_config
from gateway.load_shedding import AdmissionQueue
from gateway.settings import GatewaySettings
from servicekit.logs import configure_logs
from servicekit.metrics import CERTIFICATE_EXPIRY, serve_metrics
from servicekit.settings import SettingUnreadable, complaints
from servicekit.tls import soonest_expiry

# At each turn of the event loop, libuv takes but one connection from each of these. With a single one, new callers wait
# for seconds when there are hundreds of them and much to do.
LISTENERS = 16

try:
    settings = GatewaySettings()
except ValidationError as error:
    sys.exit(complaints(error))
except SettingUnreadable as error:
    sys.exit(str(error))
configure_logs(settings.log_level, for_people=settings.is_development)
CERTIFICATE_EXPIRY.set_function(soonest_expiry(settings.tls_certificate))
serve_metrics(settings.metrics_listen)
draining = asyncio.Event()
admission = AdmissionQueue()
config = server_config(
    create_app(settings, draining, admission), settings.http_host, settings.http_port, admission=admission
)
listener = config.bind_socket()
listeners = [listener, *(listener.dup() for _ in range(LISTENERS - 1))]
DrainingServer(config, draining, settings.drain_seconds).run(listeners)
