"""What the records service reads from its environment."""

from servicekit.settings import ServiceSettings


class RecordsSettings(ServiceSettings):
    """What records reads on top of what every service reads."""

    identity_address: str
    """`host:port` of identity, or `dns:///name:port` of all its replicas."""
    catalogue_address: str
    """`host:port` of the catalogue, or `dns:///name:port` of all its replicas."""
