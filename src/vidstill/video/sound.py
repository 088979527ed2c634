"""The sound of a file into an mp4 beside new pictures: copied where an mp4 holds it, else as AAC."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import av
import av.filter
from av.error import FFmpegError

from vidstill.video.index import open_video, packets, reason
from vidstill.video.source import Source, as_video

# What an mp4 holds and players of it play. It could hold mp2, Vorbis and DTS as well, which browsers then do not play.
_COPIED = {"aac", "mp3", "ac3", "eac3", "alac", "flac", "opus"}
_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)  # of AAC, up to what a film has
_LEAD = 0.1  # seconds of packets before the first picture that are kept, for a decoder to begin with; not played
_AHEAD = 0.5  # seconds by which the sound is written before its pictures

log = logging.getLogger(__name__)


class Sound:
    """The first audio stream of `source`, a file or a stretch of one, if it has one, as a stream of `output`, a
    container that pictures will be written to from second 0 on. It keeps its distance to the first picture of `source`,
    and ends at `end` seconds if not before: copied sound with its packet, some 20 ms.

    Several channels become two where it is encoded anew. Sound that cannot be read is left out, or ends there, with a
    warning. Raises VideoError where `source` cannot be opened.
    """

    def __init__(self, output: Any, source: Source, end: float | None = None) -> None:
        video = as_video(source)
        stretch = math.inf if video.end is None else video.end - video.start
        self.end = min(stretch, math.inf if end is None else end)
        self._source, self._output = source, output
        self._opened = ExitStack()
        self._packets: Iterator[av.Packet] = iter(())
        self._next: av.Packet | None = None
        if video.path.is_dir():  # pictures, which have none
            return
        container, pictures = self._opened.enter_context(open_video(video.path))
        streams = [stream for stream in container.streams.audio if stream.codec_context is not None]
        if not streams:
            return
        begin = float((pictures.start_time or 0) * pictures.time_base) + video.start
        stream, codec = streams[0], streams[0].codec_context
        try:
            if codec.codec.canonical_name in _COPIED and codec.sample_rate:
                self._packets = self._copied(container, stream, output.add_stream_from_template(stream), begin)
            else:
                rate = min((rate for rate in _RATES if rate >= codec.sample_rate), default=_RATES[-1])
                target = output.add_stream("aac", rate=rate, layout="mono" if codec.channels == 1 else "stereo")
                self._packets = self._encoded(container, stream, target, begin)
        except (ValueError, OSError, FFmpegError) as error:
            self._warn(error)

    def write(self, until: float) -> None:
        """What begins before `until` seconds, and a little more."""
        while (packet := self._next or next(self._packets, None)) is not None:
            self._next = packet
            if _seconds(packet) > until + _AHEAD:
                return
            self._next = None
            self._output.mux(packet)

    def close(self) -> None:
        self._packets = iter(())
        with suppress(OSError, ValueError, FFmpegError):
            self._opened.close()

    def _read(self, container: Any, stream: Any) -> Iterator[av.Packet]:
        try:
            yield from packets(container, stream)
        except FFmpegError as error:
            self._warn(error)

    def _copied(self, container: Any, stream: Any, target: Any, begin: float) -> Iterator[av.Packet]:
        last = -math.inf
        for packet in self._read(container, stream):
            if packet.dts is None or packet.pts is None or packet.dts <= last:  # what an mp4 does not take
                continue
            last, shift = packet.dts, round(begin / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            seconds = float(packet.pts * packet.time_base)
            if seconds >= self.end:
                return
            if seconds >= -_LEAD:
                packet.stream = target
                yield packet

    def _encoded(self, container: Any, stream: Any, target: Any, begin: float) -> Iterator[av.Packet]:
        """Silence stands where the source has none: before its sound begins, and where packets are lost."""
        graph = None
        for frame in self._decoded(container, stream):
            if graph is None:
                graph = _resampling(frame, target.codec_context)
            if frame.pts is not None:
                frame.pts -= round(begin / frame.time_base)
                if float(frame.pts * frame.time_base) >= self.end:
                    break
            graph.push(frame)
            yield from self._pulled(graph, target)
        if graph is not None:
            graph.push(None)
            yield from self._pulled(graph, target)
            yield from target.encode(None)

    def _decoded(self, container: Any, stream: Any) -> Iterator[Any]:
        damaged = False
        for packet in itertools.chain(self._read(container, stream), [None]):
            try:
                yield from stream.decode(packet)
            except FFmpegError as error:
                if not damaged:
                    self._warn(error)
                damaged = True

    def _pulled(self, graph: Any, target: Any) -> Iterator[av.Packet]:
        with suppress(BlockingIOError, EOFError):
            while True:
                frame = graph.pull()
                if float(frame.pts * frame.time_base) < self.end:
                    yield from target.encode(frame)

    def _warn(self, error: Exception) -> None:
        log.warning("%s: its sound is damaged, and not all of it is kept: %s", self._source, reason(error))


def _seconds(packet: Any) -> float:
    """At which it is decoded; one that does not say goes at once."""
    return -math.inf if packet.dts is None else float(packet.dts * packet.time_base)


def _resampling(frame: Any, codec: Any) -> Any:
    """From frames like this one to those that an encoder takes, without holes, from second 0 on."""
    graph = av.filter.Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate, format=frame.format.name, layout=frame.layout.name, time_base=frame.time_base
    )
    filled = graph.add("aresample", f"{codec.sample_rate}:async=1:min_hard_comp=0.02:first_pts=0")
    shaped = graph.add("aformat", f"sample_fmts={codec.format.name}:channel_layouts={codec.layout.name}")
    sink = graph.add("abuffersink")
    source.link_to(filled)
    filled.link_to(shaped)
    shaped.link_to(sink)
    graph.configure()
    graph.set_audio_frame_size(codec.frame_size or 1024)
    return graph
