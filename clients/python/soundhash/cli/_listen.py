"""`soundhash listen`: live audio, and what it is while it plays."""

from __future__ import annotations

import _thread
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from types import FrameType
from typing import Annotated

import typer

from soundhash.cli import _output as output
from soundhash.cli._audio_in import AudioIn, Reading
from soundhash.cli._connection import (
    AddressOption,
    ConfidenceOption,
    JsonOption,
    TopOption,
    connect,
)
from soundhash.cli._listening import JsonLines, Lines, Printer

_LAST_WORDS_S = 5.0
"""After Ctrl-C the server has so long to say what the audio until then was."""


def listen(
    context: typer.Context,
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE|-", help="A media file; - is standard input.", show_default=False
        ),
    ] = None,
    mic: Annotated[bool, typer.Option("--mic", help="Listen to the microphone.")] = False,
    device: Annotated[
        str,
        typer.Option(
            "--device",
            metavar="N|NAME",
            help="Which microphone: a number or a part of a name of --list-devices.",
            show_default=False,
        ),
    ] = "",
    list_devices: Annotated[
        bool, typer.Option("--list-devices", help="List the microphones, and end.")
    ] = False,
    timeline: Annotated[
        bool,
        typer.Option(
            "--timeline",
            help="Print all that was played, in order, with the gaps; a file is read as fast "
            "as it goes.",
        ),
    ] = False,
    fast: Annotated[
        bool, typer.Option("--fast", help="As fast as it goes, not as it plays.")
    ] = False,
    pcm: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT:RATE:CHANNELS",
            help="Raw audio, for example s16le:44100:2 (also s32le, f32le, u8).",
            show_default=False,
        ),
    ] = None,
    window: Annotated[
        float | None,
        typer.Option(
            "--window",
            metavar="SECONDS",
            min=3.0,
            max=12.0,
            help="How much of the latest audio is looked at together, 3 to 12; 10 by default. "
            "Less follows quick changes, more hears through noise.",
            show_default=False,
        ),
    ] = None,
    stop_after_first: Annotated[
        bool, typer.Option("--stop-after-first", help="End at the first certain match.")
    ] = False,
    top: TopOption = 5,
    min_confidence: ConfidenceOption = 0.0,
    as_json: JsonOption = False,
    address: AddressOption = None,
) -> None:
    """Stream audio as it plays, and print what it is.

    Provisional answers may change, final ones do not. Finding nothing is a normal answer. Ctrl-C
    ends the audio; what it was until then is still told.
    """
    if list_devices:
        _print_devices(as_json)
        return
    audio = _audio(source, mic, device, pcm, fast=fast, timeline=timeline)
    printer = _printer(audio, as_json=as_json, timeline=timeline)
    with connect(context, address) as client, _until_control_c(audio, printer) as ended:
        events = client.stream(
            audio.chunks(),
            pcm=audio.pcm,
            top=top,
            min_confidence=min_confidence,
            stop_after_first=stop_after_first,
            window_s=window,
        )
        with closing(events), printer:
            try:
                for event in events:
                    printer.show(event)
                    if printer.broken:
                        audio.interrupted()
                    else:
                        audio.heard(event.heard_s)
            except Exception:
                audio.check()
                # A stream that was cut at its begin has nothing to tell, and that is no failure.
                if not ended.is_set():
                    raise
            finally:
                audio.stop()
                printer.end()
        audio.check()
    if ended.is_set():
        raise typer.Exit(130)


def _audio(
    source: str | None, mic: bool, device: str, pcm: str | None, *, fast: bool, timeline: bool
) -> AudioIn:
    """What to listen to; wrong usage where that is not clear."""
    from soundhash import PcmFormat  # noqa: PLC0415 - loads gRPC

    if mic == (source is not None):
        raise typer.BadParameter("name a file, or - for standard input, or use --mic")
    if mic:
        if fast or pcm is not None:
            wrong = "--fast" if fast else "--pcm"
            raise typer.BadParameter("does not go with --mic", param_hint=wrong)
        from soundhash.cli._microphone import Microphone  # noqa: PLC0415 - an extra

        return Microphone(device)
    assert source is not None  # noqa: S101 - for the type checker
    if device:
        raise typer.BadParameter("goes with --mic", param_hint="--device")
    if source.startswith(("http://", "https://")):
        raise typer.BadParameter(
            "URLs are listened to by the server: `soundhash monitors add URL`; or decode it "
            "here: ffmpeg -i URL -f s16le -ar 16000 -ac 1 - | soundhash listen - --pcm "
            "s16le:16000:1"
        )
    if source == "-" and sys.stdin is not None and sys.stdin.isatty():
        raise typer.BadParameter("standard input is a terminal: pipe audio into it, or use --mic")
    try:
        pcm_format = None if pcm is None else PcmFormat.parse(pcm)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--pcm") from None
    return Reading(source, pcm_format, fast=fast, hurry=timeline)


def _printer(audio: AudioIn, *, as_json: bool, timeline: bool) -> Printer:
    if as_json:
        return JsonLines(timeline=timeline)
    if output.console().is_interactive:
        from soundhash.cli._live_view import LiveView  # noqa: PLC0415 - not for `--help`

        return LiveView(audio, timeline=timeline)
    return Lines(timeline=timeline)


@contextmanager
def _until_control_c(audio: AudioIn, printer: Printer) -> Iterator[threading.Event]:
    """Ctrl-C ends the audio, and the stream with it; a second one, or the first one while the
    server is away, ends the program. The event is set from the first one on."""
    ended = threading.Event()
    timer = threading.Timer(_LAST_WORDS_S, _thread.interrupt_main)
    timer.daemon = True

    def end(signum: int, frame: FrameType | None) -> None:
        if ended.is_set() or printer.broken:
            raise KeyboardInterrupt
        ended.set()
        audio.stop()
        timer.start()

    try:
        before = signal.signal(signal.SIGINT, end)
    except ValueError:  # not in the main thread: somebody else's program
        yield ended
        return
    try:
        yield ended
    finally:
        timer.cancel()
        signal.signal(signal.SIGINT, before)


def _print_devices(as_json: bool) -> None:
    from soundhash.cli._microphone import devices  # noqa: PLC0415 - an extra

    found = devices()
    if as_json:
        for one in found:
            output.print_json(one)
        return
    if not found:
        output.console(stderr=True).print("no microphones")
        return
    output.print_table(
        ("device", "name", "system", "channels", "rate", ""),
        [
            (
                str(one.number),
                output.escape(one.name),
                output.escape(one.system),
                str(one.channels),
                f"{one.rate_hz} Hz",
                "default" if one.default else "",
            )
            for one in found
        ],
        right=("device", "channels", "rate"),
    )
