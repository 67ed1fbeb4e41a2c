"""The error a user can mend: the command line prints its message alone and exits with 2."""


class UserError(ValueError):
    """Bad input; the message reads `file: field: what is wrong (what to do)`."""


class ToldByFirstRank(UserError):
    """The same on the ranks beside the first one, which prints it: they end with the same status and say nothing."""
