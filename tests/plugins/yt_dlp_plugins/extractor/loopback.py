"""An extractor of yt-dlp for the site of tests/site.py: what real ones do, without the internet.

yt-dlp finds it where PYTHONPATH names the folder two above this one.
"""

from __future__ import annotations

from typing import Any

from yt_dlp.extractor.common import InfoExtractor, SearchInfoExtractor
from yt_dlp.utils import ExtractorError


class LoopbackIE(InfoExtractor):
    _VALID_URL = r"(?P<base>http://[\d.]+(?::\d+)?)/(?:watch|w)/(?P<id>[\w-]+)"

    def _real_extract(self, url: str) -> dict[str, Any]:
        base, media_id = self._match_valid_url(url).group("base", "id")
        said: dict[str, Any] = self._download_json(f"{base}/api/{media_id}", media_id)
        if said.get("warning"):
            self.report_warning(said["warning"])
        if said.get("error"):
            raise ExtractorError(said["error"], expected=True)
        if said.get("geo"):
            self.raise_geo_restricted(countries=["US"])
        if said.get("login"):
            self.raise_login_required()
        return {
            "id": media_id,
            "title": f"Title of {media_id}",
            "formats": [{"url": f"{base}/media/{media_id}", "ext": "wav", "vcodec": "none"}],
            **said,
        }


class LoopbackSearchIE(SearchInfoExtractor):
    _SEARCH_KEY = "loopbacksearch"

    def _search_results(self, query: str) -> Any:
        base, _, words = query.partition(" ")
        for media_id in self._download_json(f"{base}/search", None, query={"q": words}):
            yield self.url_result(f"{base}/watch/{media_id}", LoopbackIE, media_id)
