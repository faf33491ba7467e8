"""Deep links."""

import pytest

from soundhash_server.services.links import deep_link


@pytest.mark.parametrize(
    ("url", "at_s", "link"),
    [
        ("https://www.youtube.com/watch?v=a1", 83.9, "https://www.youtube.com/watch?v=a1&t=83s"),
        (
            "https://m.youtube.com/watch?t=5&v=a1&list=x",
            83,
            "https://m.youtube.com/watch?v=a1&list=x&t=83s",
        ),
        ("https://music.youtube.com/watch?v=a", 1, "https://music.youtube.com/watch?v=a&t=1s"),
        ("https://youtu.be/a1?si=x", 7, "https://youtu.be/a1?si=x&t=7s"),
        ("https://youtube.com/shorts/a-1_", 7, "https://youtube.com/watch?v=a-1_&t=7s"),
        ("https://www.youtube.com/embed/a1", 7, "https://www.youtube.com/embed/a1?start=7"),
        ("https://www.twitch.tv/videos/123", 3723, "https://www.twitch.tv/videos/123?t=1h2m3s"),
        ("https://www.twitch.tv/someone", 3723, "https://www.twitch.tv/someone"),
        ("https://vimeo.com/123", 83, "https://vimeo.com/123#t=83s"),
        ("https://www.dailymotion.com/video/x1", 9, "https://www.dailymotion.com/video/x1?start=9"),
        ("https://www.bilibili.com/video/B1", 9, "https://www.bilibili.com/video/B1?t=9"),
        ("https://soundcloud.com/a/b", 9, "https://soundcloud.com/a/b#t=9"),
        ("https://example.com/a/Song.MP3?x=1", 9.99, "https://example.com/a/Song.MP3?x=1#t=9"),
        ("https://example.com/page", 9, "https://example.com/page"),
        ("https://notyoutube.com/watch?v=a", 9, "https://notyoutube.com/watch?v=a"),
        ("https://youtu.be/a1", -3.0, "https://youtu.be/a1?t=0s"),
        ("http://[broken", 9, "http://[broken"),
        ("", 9, ""),
    ],
)
def test_links_start_where_the_match_does(url: str, at_s: float, link: str) -> None:
    assert deep_link(url, at_s) == link
