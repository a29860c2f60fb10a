"""What holds for every request: the error envelope, methods, paths, headers, and what is open to everybody."""

import re
import secrets
from collections.abc import Iterator
from datetime import datetime

import httpx
import pytest

from tests.e2e.conftest import System, World, assert_refused, made
from tests.e2e.contract import ACCESS, OPERATIONS, PUBLIC, SCHEMES, Operation
from tests.e2e.gateways import running_gateway
from tests.e2e.samples import Samples, make_samples

REQUEST_IDS = ("a", "A-Z_09", "x" * 64, "019a9f3c-7c1e-7d52-b9a4-3f1f0d6c2b11", "-", "_")
OTHER_REQUEST_IDS = ("", "x" * 65, "a b", "a.b", "a/b", "a:b", "é", "a,b", "<a>", '"a"', "a%0d%0ab")
TRACE_PARENTS = (
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00",
    "cc-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
    "00-00000000000000000000000000000000-0000000000000000-00",
    "nonsense",
    "",
    "0" * 5_000,
)
# What exists, each time written in a way that is not the path's.
OTHER_PATHS = (
    "/",
    "/users/",
    "//users",
    "/users//",
    "/Users",
    "/v1/users",
    "/users.json",
    "/auth",
    "/auth/token/",
    "/platforms/",
    "/benefit_providers/",
    "/benefit-providers",
    "/benefits/",
    "/mrns/",
    "/audit_logs/",
    "/audit_logs/verify/",
    "/audit_logs/1",
    "/livez/",
    "/readyz/",
    "/api_docs",
    "/api_docs/",
    "/api_docs/ui/",
    "/api_docs/openapi.json/",
    "/docs",
    "/redoc",
    "/openapi.json",
    "/metrics",
    "/favicon.ico",
    "/robots.txt",
    "/.env",
    "/api_docs/assets/../../settings.py",
    "/api_docs/assets/%2e%2e%2fswagger-ui.css",
    "/users/1/2/3",
    "/%00",
    "/%ff",
    "/é",
    "/livez%0A",
    "/platforms%0a",
    "/users;a=b",
)
ORIGIN = "https://app.example"
JSON = {"content-type": "application/json"}
FOREIGN_METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "TRACE")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z")
UUID7 = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}")


@pytest.fixture(scope="module")
def samples(world: World) -> Samples:
    return make_samples(world)


@pytest.fixture(scope="module")
def gateway(system: System) -> Iterator[httpx.Client]:
    """A client of a gateway that was told which origins browsers may call from."""
    with (
        running_gateway(system, AAROKYA_CORS_ORIGINS=f"{ORIGIN},https://other.example") as url,
        httpx.Client(base_url=url, trust_env=False) as client,
    ):
        yield client


class TestPaths:
    @pytest.mark.parametrize("path", OTHER_PATHS)
    @pytest.mark.parametrize("method", ["GET", "POST", "DELETE"])
    def test_knows_no_other(self, world: World, path: str, method: str) -> None:
        response = world.admin.request(method, path)
        assert_refused(response, 404, "RQ-103")
        assert "location" not in response.headers

    def test_tells_strangers_that_there_is_no_such_path(self, world: World) -> None:
        assert_refused(world.http.get("/nothing"), 404, "RQ-103")
        assert_refused(world.http.get("/nothing", headers={"admin-api-key": "guess"}), 404, "RQ-103")

    @pytest.mark.parametrize("path", ACCESS)
    def test_does_not_redirect_trailing_slashes(self, samples: Samples, path: str) -> None:
        for method, callers in ACCESS[path].items():
            caller = samples.callers[callers[0]]
            response = caller.request(method, f"{path.format(**samples.ids)}/", follow_redirects=False)
            assert_refused(response, 404, "RQ-103")


class TestMethods:
    @pytest.mark.parametrize("path", [*ACCESS, *PUBLIC])
    def test_allows_what_the_contract_lists(self, samples: Samples, world: World, path: str) -> None:
        allowed = sorted(ACCESS.get(path, {"GET": ""}))
        for method in FOREIGN_METHODS:
            if method in allowed:
                continue
            response = world.http.request(method, path.format(**samples.ids))
            assert response.status_code == 405
            assert response.headers["allow"].split(", ") == allowed
            assert response.headers["x-request-id"]
            if method != "HEAD":
                assert_refused(response, 405, "RQ-104")

    def test_does_not_know_overrides(self, world: World, samples: Samples) -> None:
        for name in ("x-http-method-override", "x-method-override", "x-http-method"):
            assert made(world.admin.get(samples.user.path, headers={name: "DELETE"}), 200)["status"] == "active"


class TestRequestId:
    @pytest.mark.parametrize("request_id", REQUEST_IDS)
    def test_is_taken(self, world: World, request_id: str) -> None:
        for path in ("/livez", "/users", "/nothing"):
            response = world.http.get(path, headers={"x-request-id": request_id})
            assert response.headers["x-request-id"] == request_id
            if response.is_error:
                assert response.json()["error"]["request_id"] == request_id

    @pytest.mark.parametrize("request_id", OTHER_REQUEST_IDS)
    def test_is_minted_in_place_of_another_form(self, world: World, request_id: str) -> None:
        response = world.http.get("/users", headers={"x-request-id": request_id.encode()})
        minted = response.headers["x-request-id"]
        assert minted != request_id
        assert re.fullmatch(r"[A-Za-z0-9_-]{1,64}", minted)
        assert response.json()["error"]["request_id"] == minted

    def test_is_minted_anew_each_time(self, world: World) -> None:
        minted = {world.http.get("/livez").headers["x-request-id"] for _ in range(20)}
        assert len(minted) == 20

    def test_is_in_the_audit_log(self, world: World) -> None:
        request_id = world.unique("r")
        body = {"name": world.unique("Rides")}
        platform = made(world.admin.post("/platforms", body, headers={"x-request-id": request_id}), 201)
        rows = made(world.admin.get("/audit_logs", params={"entity_id": platform["id"]}), 200)["items"]
        assert [row["request_id"] for row in rows] == [request_id]


@pytest.mark.parametrize("operation", OPERATIONS, ids=str)
class TestHeadersOfEveryOperation:
    def test_keeps_answers_out_of_caches(self, samples: Samples, world: World, operation: Operation) -> None:
        path = samples.path(operation)
        good = samples.caller(operation).request(operation.method, path, params={"unknown": "1"})
        stranger = world.http.request(operation.method, path)
        for response in (good, stranger):
            assert response.headers["cache-control"] == "no-store"
            assert response.headers["content-type"] == "application/json"
            assert response.headers["x-content-type-options"] == "nosniff"
            assert "server" not in response.headers
            assert "set-cookie" not in response.headers
            assert not [name for name in response.headers if name.startswith("access-control-")]

    def test_challenges_strangers(self, samples: Samples, world: World, operation: Operation) -> None:
        response = world.http.request(operation.method, samples.path(operation))
        assert_refused(response, 401, "AU-201")
        assert response.headers["www-authenticate"]


class TestHeaders:
    def test_keeps_successes_out_of_caches(self, samples: Samples) -> None:
        for operation in OPERATIONS:
            if operation.method != "GET":
                continue
            params = {"user_id": samples.user.id} if operation.path == "/mrns" else {}
            response = samples.caller(operation).get(samples.path(operation), params=params)
            assert (response.status_code, response.headers["cache-control"]) == (200, "no-store")
        deleted = samples.callers["A"].delete(f"/benefits/{samples.ids['benefit_id']}")
        assert (deleted.status_code, deleted.headers["cache-control"], deleted.content) == (204, "no-store", b"")
        assert deleted.headers["x-request-id"]

    @pytest.mark.parametrize("parent", TRACE_PARENTS)
    def test_takes_any_trace_parent(self, world: World, parent: str) -> None:
        headers = {"traceparent": parent, "tracestate": "vendor=1"}
        assert world.admin.get("/platforms", params={"page_size": 1}, headers=headers).status_code == 200

    def test_answers_no_other_origins(self, world: World) -> None:
        origin = {"origin": "https://evil.example", "access-control-request-method": "GET"}
        for response in (world.http.options("/users", headers=origin), world.admin.get("/users", headers=origin)):
            assert not [name for name in response.headers if name.startswith("access-control-")]
        assert_refused(world.http.options("/users", headers=origin), 405, "RQ-104")


class TestBodies:
    def test_answers_bare_resources_with_every_field(self, samples: Samples) -> None:
        """The hook of the client holds every answer against its schema; here is what no schema says."""
        admin, ids = samples.callers["A"], samples.ids
        for path, nulls in (
            (f"/platforms/{ids['platform_id']}", ("contact_email", "status_reason")),
            (samples.user.path, ("middle_name", "last_name", "email", "id_proof_type", "deactivated_at")),
            (f"{samples.user.path}/dependants/{ids['dependant_id']}", ("last_name", "phone_number", "status_reason")),
            (f"/benefit_providers/{ids['benefit_provider_id']}", ("support_phone", "mrn_pattern")),
            (f"/benefits/{ids['benefit_id']}", ("valid_from", "coverage_paise", "min_age")),
        ):
            resource = made(admin.get(path), 200)
            assert "data" not in resource
            assert [resource[name] for name in nulls] == [None] * len(nulls)
            assert UUID7.fullmatch(resource["id"])
            times = [value for name, value in resource.items() if name.endswith("_at") and value is not None]
            assert times
            for time in times:
                assert TIME.fullmatch(time)
                datetime.fromisoformat(time)
            assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in resource)


class TestStatuses:
    """What §5 says of creating and changing."""

    def test_creation_says_where(self, samples: Samples, world: World) -> None:
        user, ids = samples.user, samples.ids
        for path, body, reader in (
            ("/platforms", {"name": world.unique("Rides")}, world.admin),
            (
                f"{user.path}/dependants",
                {"relationship": "WARD", "first_name": "Arun", "gender": "MALE", "date_of_birth": "2015-08-15"},
                user.caller,
            ),
            ("/benefit_providers", {**samples.bodies["/benefit_providers"], "code": world.unique("p")}, world.admin),
            ("/benefits", {**samples.bodies["/benefits"], "code": world.unique("b")}, world.admin),
            (f"{user.path}/accounts", {"type": "WALLET", "account_number": world.unique("w")}, user.caller),
            (
                "/mrns",
                {
                    "dependant_id": ids["dependant_id"],
                    "benefit_provider_id": world.provider()["id"],
                    "mrn": "M-1",
                },
                user.caller,
            ),
        ):
            created = reader.post(path, body)
            assert created.status_code == 201, created.text
            assert created.headers["location"] == f"{path}/{created.json()['id']}"
            assert reader.get(created.headers["location"]).json() == created.json()

    def test_creation_of_keys_says_where(self, samples: Samples, world: World) -> None:
        path = f"/platforms/{samples.ids['platform_id']}/api_keys"
        created = world.admin.post(path, {"name": "test"})
        assert made(created, 201)["secret"]
        assert created.headers["location"] == f"{path}/{created.json()['id']}"
        assert world.admin.delete(created.headers["location"]).status_code == 204

    def test_actions_answer_the_resource(self, world: World) -> None:
        platform = world.platform()
        path = f"/platforms/{platform.id}"
        for action, status in (("suspend", "suspended"), ("activate", "active")):
            done = world.admin.post(f"{path}/{action}", {"reason": "test"})
            assert (made(done, 200)["status"], done.json()["id"]) == (status, platform.id)
            assert "location" not in done.headers


class TestInfrastructure:
    @pytest.mark.parametrize("path", PUBLIC)
    def test_is_open_to_everybody_whatever_they_show(self, world: World, path: str) -> None:
        for headers in (
            {},
            {"admin-api-key": "guess"},
            {"authorization": "Bearer guess", "api-key": "guess"},
            {"accept": "image/png"},
        ):
            response = world.http.get(path, headers=headers)
            assert response.status_code == 200
            assert response.headers["x-request-id"]

    def test_browser_needs_no_internet(self, world: World) -> None:
        page = world.http.get("/api_docs/ui")
        assert page.headers["content-type"].startswith("text/html")
        assert not re.findall(r"""(?:src|href)=["'](?:https?:)?//""", page.text)
        assets = re.findall(r"""(?:src|href)=["'](/[^"']+)""", page.text)
        assert assets
        for asset in assets:
            assert world.http.get(asset).status_code == 200
        assert "/api_docs/openapi.json" in page.text

    def test_metrics_are_not_here(self, world: World) -> None:
        assert_refused(world.admin.get("/metrics"), 404, "RQ-103")
        metrics = httpx.get(world.system.runtime["gateway"]["metrics_url"], trust_env=False)
        assert metrics.status_code == 200
        assert "# HELP" in metrics.text

    def test_names_all_kinds_of_credentials(self, world: World) -> None:
        schemes = world.http.get("/api_docs/openapi.json").json()["components"]["securitySchemes"]
        assert set(schemes) == set(SCHEMES.values())
        assert (schemes["admin_api_key"]["in"], schemes["admin_api_key"]["name"]) == ("header", "admin-api-key")
        assert (schemes["api_key"]["in"], schemes["api_key"]["name"]) == ("header", "api-key")
        assert (schemes["user_token"]["type"], schemes["user_token"]["scheme"]) == ("http", "bearer")
        assert (schemes["partner_basic"]["type"], schemes["partner_basic"]["scheme"]) == ("http", "basic")


class TestOrigins:
    def preflight(self, gateway: httpx.Client, origin: str, method: str) -> httpx.Response:
        asked = {"access-control-request-method": method, "access-control-request-headers": "api-key,if-match"}
        return gateway.options("/mrns", headers={"origin": origin, **asked})

    @pytest.mark.parametrize("method", ["GET", "POST", "PATCH", "DELETE"])
    def test_lets_browsers_ask(self, gateway: httpx.Client, method: str) -> None:
        allowed = self.preflight(gateway, ORIGIN, method)
        assert allowed.status_code == 200
        assert allowed.headers["access-control-allow-origin"] == ORIGIN
        assert method in allowed.headers["access-control-allow-methods"]
        assert "if-match" in allowed.headers["access-control-allow-headers"]

    def test_lets_browsers_read_answers_and_refusals(self, gateway: httpx.Client, samples: Samples) -> None:
        for headers, status in ((samples.user.caller.headers, 200), ({}, 401)):
            response = gateway.get("/mrns", headers={"origin": ORIGIN, **headers})
            assert response.status_code == status
            assert response.headers["access-control-allow-origin"] == ORIGIN
            assert "access-control-allow-credentials" not in response.headers
            exposed = response.headers["access-control-expose-headers"].lower()
            assert {"etag", "location", "x-request-id", "retry-after"} <= set(exposed.split(", "))

    def test_lets_browsers_read_what_is_refused_before_the_application(
        self, gateway: httpx.Client, samples: Samples
    ) -> None:
        response = gateway.post(
            "/mrns", content=b" " * 300_000, headers={"origin": ORIGIN, **JSON, **samples.user.caller.headers}
        )
        assert_refused(response, 413, "RQ-106")
        assert response.headers["access-control-allow-origin"] == ORIGIN

    @pytest.mark.parametrize(
        "origin", ["https://evil.example", "https://app.example.evil", "http://app.example", "null", "*", ""]
    )
    def test_tells_other_origins_nothing(self, gateway: httpx.Client, origin: str) -> None:
        assert_refused(self.preflight(gateway, origin, "GET"), 405, "RQ-104")
        response = gateway.get("/mrns", headers={"origin": origin})
        assert "access-control-allow-origin" not in response.headers

    def test_answers_options_that_ask_nothing_as_always(self, gateway: httpx.Client) -> None:
        response = gateway.options("/mrns", headers={"origin": ORIGIN})
        assert_refused(response, 405, "RQ-104")
        assert response.headers["allow"] == "GET, POST"
        assert_refused(self.preflight(gateway, ORIGIN, "PUT"), 405, "RQ-104")


class TestUnexpected:
    def test_tells_nothing_but_where_to_look(self, system: System, world: World) -> None:
        user = world.user()
        path = f"{user.path}/accounts"
        account = made(user.caller.post(path, {"type": "WALLET", "account_number": world.unique("w")}), 201)["id"]
        with system.superuser("records") as connection:
            broken = "UPDATE accounts SET sealed = decode('00', 'hex') WHERE id = %s"
            assert connection.execute(broken, (account,)).rowcount == 1
        request_id, trace_id = world.unique("r"), secrets.token_hex(16)
        headers = {"x-request-id": request_id, "traceparent": f"00-{trace_id}-b7ad6b7169203331-01"}
        for failing in (path, f"{path}/{account}"):
            response = user.caller.get(failing, headers=headers)
            assert_refused(response, 500, "RQ-100")
            assert response.headers["cache-control"] == "no-store"
            assert response.json()["error"]["details"] == []
            for word in ("seal", "records", "grpc", "Traceback", "Error", "sql", account):
                assert word not in response.text
        for process in ("gateway", "records"):
            lines = (system.data / "logs" / f"{process}.log").read_text(errors="replace").splitlines()
            # Whoever has one of the two finds the other.
            assert [line for line in lines if request_id in line and trace_id in line]
