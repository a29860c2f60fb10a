"""Why a call about dependants is refused."""

from servicekit.errors import AlreadyExists, NotFound, RuleBroken, WrongState


class DependantUnknown(NotFound):
    """No dependant of the user's has this id."""

    code = "DE-501"
    message = "There is no such dependant."


class DependantRuleBroken(RuleBroken):
    """What is said of the person breaks a rule."""

    code = "DE-502"
    message = "The dependant breaks a rule."


class DependantDuplicate(AlreadyExists):
    """The family has somebody of this name, birth date and relationship."""

    code = "DE-503"
    message = "The family has a dependant with this name, birth date and relationship already."


class SelfIsManaged(WrongState):
    """SELF says what the user's profile says, and nothing else."""

    code = "DE-504"
    message = "SELF follows the user's profile and cannot be created, changed or removed here."


class FamilyFull(WrongState):
    """The platform allows no more dependants."""

    code = "DE-505"
    message = "The platform allows no more dependants."


class DependantRemoved(WrongState):
    """The person was taken out of the family."""

    code = "DE-506"
    message = "The dependant was removed."
