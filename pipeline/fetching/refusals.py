"""Why a file was not fetched."""


class FetchRefused(Exception):
    """Nothing was fetched; `reason` is a code of the download stage, `detail` says what was seen, if anything."""

    def __init__(self, reason: str, detail: str | None = None) -> None:
        """Remember why."""
        # Both as `args`: by them an exception is made again in another process.
        super().__init__(reason, detail)
        self.reason = reason
        self.detail = detail

    def __str__(self) -> str:
        return self.reason if self.detail is None else f"{self.reason}: {self.detail}"
