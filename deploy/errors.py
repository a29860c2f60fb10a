"""Why something cannot run here, always in one sentence that a user can act on."""


class CannotRun(Exception):
    """The base of all of them; `make run` shows the sentence and ends."""


class DataUnusable(CannotRun):
    """What the data folder holds does not fit together, or the folder cannot be used at all."""


class NoPostgres(CannotRun):
    """There is no PostgreSQL for us."""


class ProgramFailed(CannotRun):
    """A program ended that should not have."""


class WrongOption(CannotRun):
    """A variable of the environment makes no sense, or names what cannot be had."""
