"""What the records service reads from its environment."""

from servicekit.settings import ServiceSettings


class RecordsSettings(ServiceSettings):
    """What records reads on top of what every service reads."""

    identity_address: str
    catalogue_address: str
