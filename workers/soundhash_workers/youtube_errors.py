"""What the YouTube Data API says that is no failure of a job yet."""


class PageGoneError(Exception):
    """A page's mark is not known any more: the list has to be begun anew."""


class QuotaUsedUpError(Exception):
    """The API says that the day's quota is used up."""
