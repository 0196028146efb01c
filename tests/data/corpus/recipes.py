"""What a generated video is made of, and the draws of recipes: codecs, containers, structure, metadata, lies."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple


class Encoder(NamedTuple):
    """What an encoder takes, and the containers that its packets are put into here.

    ``b_frames`` is the largest number of B-frames in a row, ``gop`` says whether the length of a group of pictures can
    be chosen, ``any_rate`` is False for codecs with a list of rates.
    """

    name: str
    containers: tuple[str, ...]
    pix_fmts: tuple[str, ...] = ("yuv420p",)
    size: tuple[int, int] = (128, 96)
    gop: bool = True
    b_frames: int = 0
    any_rate: bool = True
    options: tuple[tuple[str, str], ...] = ()


_X264 = (("preset", "ultrafast"), ("crf", "18"))
_X265 = (("preset", "ultrafast"), ("crf", "18"))
_QUALITY = (("qmin", "1"), ("qmax", "4"), ("b", "4M"))

ENCODERS = {
    "h264": Encoder(
        "libx264",
        ("mp4", "mov", "3gp", "mkv", "avi", "flv", "ts", "m2ts", "vob", "asf", "nut", "mxf", "h264"),
        ("yuv420p", "yuv422p", "yuv444p", "yuvj420p", "yuv420p10le", "nv12"),
        b_frames=3,
        options=_X264,
    ),
    "hevc": Encoder(
        "libx265",
        ("mp4", "mov", "mkv", "ts", "flv", "nut", "hevc"),
        ("yuv420p", "yuv422p", "yuv444p", "yuv420p10le", "gbrp"),
        b_frames=3,
        options=_X265,
    ),
    "mpeg4": Encoder(
        "mpeg4", ("mp4", "mov", "3gp", "avi", "mkv", "ts", "asf", "nut", "m4v"), b_frames=3, options=_QUALITY
    ),
    "msmpeg4v2": Encoder("msmpeg4v2", ("avi", "asf", "nut"), options=_QUALITY),
    "msmpeg4v3": Encoder("msmpeg4", ("avi", "asf", "mkv", "nut", "mov"), options=_QUALITY),
    "h263": Encoder("h263", ("3gp", "mov", "avi", "nut", "h263"), options=_QUALITY, any_rate=False),
    "h263p": Encoder("h263p", ("avi", "nut"), options=_QUALITY),
    "h261": Encoder("h261", ("avi", "nut", "h261"), size=(176, 144), options=_QUALITY, any_rate=False),
    "flv1": Encoder("flv", ("flv", "avi", "nut"), options=_QUALITY),
    "mpeg1": Encoder(
        "mpeg1video",
        ("mpg", "ts", "mkv", "avi", "mp4", "nut", "m1v"),
        b_frames=3,
        any_rate=False,
        options=_QUALITY,
    ),
    "mpeg2": Encoder(
        "mpeg2video",
        ("mpg", "vob", "ts", "mkv", "mp4", "mov", "avi", "mxf", "nut", "m2v"),
        ("yuv420p", "yuv422p"),
        b_frames=3,
        any_rate=False,
        options=_QUALITY,
    ),
    "wmv1": Encoder("wmv1", ("asf", "avi", "nut"), options=_QUALITY),
    "wmv2": Encoder("wmv2", ("asf", "avi", "nut"), options=_QUALITY),
    "vp8": Encoder(
        "libvpx",
        ("webm", "mkv", "avi", "ivf", "nut", "ogg"),
        options=(("deadline", "realtime"), ("cpu-used", "8"), ("b", "1M")),
    ),
    "vp9": Encoder(
        "libvpx-vp9",
        ("webm", "mkv", "mp4", "ivf", "nut", "avi"),
        ("yuv420p", "yuv422p", "yuv444p"),
        options=(("deadline", "realtime"), ("cpu-used", "8"), ("b", "1M")),
    ),
    "av1": Encoder(
        "libsvtav1",
        ("mkv", "webm", "mp4", "ivf", "obu", "avif", "nut"),
        ("yuv420p", "yuv420p10le"),
        any_rate=False,
        options=(("preset", "8"), ("crf", "10"), ("svtav1-params", "lp=1")),
    ),
    "mjpeg": Encoder(
        "mjpeg",
        ("avi", "mov", "mkv", "mp4", "nut", "asf", "mjpeg"),
        ("yuvj420p", "yuvj422p", "yuvj444p", "yuv420p"),
        gop=False,
        options=(("qmax", "4"), ("strict", "unofficial")),
    ),
    "ffv1": Encoder("ffv1", ("mkv", "avi", "nut"), ("yuv420p", "yuv444p", "gray", "bgra"), options=(("level", "3"),)),
    "huffyuv": Encoder("huffyuv", ("avi", "nut"), ("yuv422p", "rgb24", "bgra"), gop=False),
    "ffvhuff": Encoder("ffvhuff", ("avi", "nut"), ("yuv420p", "yuv444p"), gop=False),
    "utvideo": Encoder("utvideo", ("avi", "nut"), ("yuv420p", "gbrp"), gop=False),
    "magicyuv": Encoder("magicyuv", ("avi", "nut"), ("yuv420p", "gbrp"), gop=False),
    "png": Encoder("png", ("mov", "avi", "mp4", "nut"), ("rgb24", "rgba", "gray", "pal8"), gop=False),
    "apng": Encoder("apng", ("apng",), ("rgb24", "rgba"), gop=False),
    "gif": Encoder("gif", ("gif",), ("rgb8", "bgr8", "gray"), gop=False, any_rate=False),
    "prores": Encoder("prores", ("mov", "mkv", "mxf"), ("yuv422p10le",), gop=False, any_rate=False),
    "dnxhd": Encoder(
        "dnxhd", ("mov", "mxf"), ("yuv422p",), (256, 120), False, any_rate=False, options=(("profile", "dnxhr_lb"),)
    ),
    "jpeg2000": Encoder(
        "jpeg2000", ("mov", "mkv", "mp4", "avi", "mxf"), ("rgb24", "yuv420p"), gop=False, any_rate=False
    ),
    "cinepak": Encoder("cinepak", ("avi", "mov"), ("rgb24",)),
    "svq1": Encoder("svq1", ("mov", "avi"), ("yuv410p",)),
    "rv10": Encoder("rv10", ("rm",), options=_QUALITY),
    "rv20": Encoder("rv20", ("rm",), options=_QUALITY),
    "raw": Encoder("rawvideo", ("avi", "mov", "nut"), ("bgr24",), gop=False),
    "v210": Encoder("v210", ("mov", "avi"), ("yuv422p10le",), gop=False),
    "qtrle": Encoder("qtrle", ("mov",), ("rgb24", "argb", "gray")),
    "msrle": Encoder("msrle", ("avi",), ("pal8",)),
    "smc": Encoder("smc", ("mov",), ("pal8",)),
    "rpza": Encoder("rpza", ("mov",), ("rgb555le",)),
    "msvideo1": Encoder("msvideo1", ("avi",), ("rgb555le",)),
    "zmbv": Encoder("zmbv", ("avi",), ("bgr0", "pal8")),
    "flashsv": Encoder("flashsv", ("flv",), ("bgr24",)),
    "asv1": Encoder("asv1", ("avi",), gop=False, options=(("qmax", "4"),)),
    "snow": Encoder("snow", ("avi", "mkv", "nut")),
    "cfhd": Encoder("cfhd", ("mov", "avi"), ("yuv422p10le",), gop=False),
    "dv": Encoder("dvvideo", ("avi", "mov", "dv"), ("yuv420p",), (720, 576), False, any_rate=False),
}

# Suffix, and the name of FFmpeg's muxer where the suffix does not tell.
MUXERS = {
    "m2ts": "mpegts",
    "ts": "mpegts",
    "vob": "vob",
    "mpg": "mpeg",
    "asf": "asf",
    "m1v": "mpeg1video",
    "m2v": "mpeg2video",
    "m4v": "m4v",
    "mkv": "matroska",
}
MP4 = frozenset({"mp4", "mov", "3gp"})
# Containers that store a time stamp for each picture; the second set without NUT, whose muxer ends the process if it
# does not like them.
TIMED = MP4 | {"mkv", "webm", "nut", "flv", "ts", "m2ts", "mpg", "vob", "asf"}
_ANY_STAMPS = TIMED - {"nut"}

FIXED_SIZES = frozenset({"h261", "h263", "dv", "dnxhd"})

# What is wrong with a file, and the containers in which it can be: empty for all.
LIES: dict[str, frozenset[str]] = {
    "no_stss": MP4,
    "wrong_stss": MP4,
    "no_ctts": MP4,
    "edit_list": MP4,
    "all_key": frozenset({"mp4", "mov", "3gp", "mkv", "webm", "avi", "flv", "asf", "rm", "ogg"}),
    "no_key": frozenset({"mp4", "mov", "3gp", "mkv", "webm", "avi", "flv", "asf", "ts"}),
    "pts_is_dts": _ANY_STAMPS,
    "merged": frozenset({"mp4", "mov", "3gp", "mkv", "webm", "avi", "flv", "asf", "ts", "ivf"}),
    "no_picture": frozenset({"mp4", "mov", "3gp", "mkv", "avi", "flv", "ts"}),
    "empty_packets": frozenset({"mp4", "mov", "mkv"}),
    "same_pts": _ANY_STAMPS,
    "jittered_pts": _ANY_STAMPS,
    "descending_pts": frozenset({"mkv", "webm"}),
    "first_packet_lost": _ANY_STAMPS | {"avi"},
    "second_stream": frozenset({"mp4", "mov", "mkv", "webm", "avi", "nut", "ts", "asf"}),
    "larger_second_stream": frozenset({"mp4", "mov", "mkv", "webm", "avi", "nut", "ts", "asf"}),
    "noisy_second_stream": frozenset({"mp4", "mov", "mkv", "avi", "nut"}),
    "cover": frozenset({"mp4", "mkv"}),
    "garbage": frozenset(),
    "comment": frozenset({"gif"}),
}


@dataclass(frozen=True)
class Recipe:
    """One generated video. ``write`` makes the same file of the same recipe.

    Attributes:
        codec: one of ``ENCODERS``.
        container: the file's suffix.
        frames: number of pictures.
        gop: longest distance between key frames.
        b_frames: B-frames in a row.
        open_gop: whether B-frames may refer across a key frame.
        pyramid: whether B-frames may be references.
        rate: pictures per second; 0 for gaps of 10 to 500 ms.
        start: time stamp of the first picture, in pictures.
        orientation: of the display matrix, one of ``pictures.ORIENTATIONS``; 0 for none.
        matrix: "", or a display matrix that is no turn: "zero", "shear".
        by_message: whether H.264's and HEVC's own message states the orientation, and not the container.
        pix_fmt: pixel format.
        color: the matrix that the file states, "" for none.
        full_range: whether the file states full range.
        interlaced: whether pictures are coded as fields.
        lie: one of ``LIES``, "" for an honest file.
        seed: of the lie's random choices.
    """

    codec: str
    container: str
    frames: int = 24
    gop: int = 12
    b_frames: int = 0
    open_gop: bool = False
    pyramid: bool = False
    rate: Fraction = Fraction(25)
    start: int = 0
    orientation: int = 0
    matrix: str = ""
    by_message: bool = False
    pix_fmt: str = "yuv420p"
    color: str = ""
    full_range: bool = False
    interlaced: bool = False
    lie: str = ""
    seed: int = 0

    def __str__(self) -> str:
        default = Recipe(self.codec, self.container, pix_fmt=ENCODERS[self.codec].pix_fmts[0])
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        changed = [f"{k}={v!s}" for k, v in values.items() if v != getattr(default, k)]
        return " ".join([f"{self.codec}.{self.container}", *changed])


def draw_recipe(draws: random.Random, codec: str | None = None, lie: str | None = None) -> Recipe:
    """A recipe, of a given codec or any, with a given lie ("" for none) or, for every other one, any."""
    if lie is None:
        lie = draws.choice(sorted(LIES)) if draws.random() < 0.5 else ""
    pairs = [
        (name, container)
        for name in sorted(ENCODERS)
        for container in ENCODERS[name].containers
        if codec in (None, name) and (not lie or lie in possible_lies(name, container))
    ]
    # Codecs first, so that one of many containers is not drawn more often.
    codec = draws.choice(sorted({name for name, _ in pairs}))
    container = draws.choice([where for name, where in pairs if name == codec])
    encoder = ENCODERS[codec]
    b_frames = draws.randint(0, encoder.b_frames)
    rates = [Fraction(25), Fraction(24000, 1001), Fraction(30)]
    if encoder.any_rate:
        rates += [Fraction(1), Fraction(1000)]
    if encoder.any_rate and container in TIMED | {"avi"}:
        rates.append(Fraction(0))
    rate = draws.choice(rates)
    # FFmpeg's MPEG-4 encoder gives fields in milliseconds such stamps that its decoder leaves pictures out.
    fields = codec in ("h264", "mpeg2") or (codec == "mpeg4" and (0 < rate < 1000 or lie))
    by_message = codec == "h264" and not lie and draws.random() < 0.2
    matrix = draws.choice(["", "", "", "zero", "shear"]) if container in MP4 and not by_message else ""
    turned = by_message or (container in MP4 and not matrix and draws.random() < 0.5)
    return Recipe(
        codec,
        container,
        frames=draws.randint(2, 40),
        gop=draws.choice([1, 5, 12, 250]) if encoder.gop else 12,
        b_frames=b_frames,
        open_gop=codec in ("h264", "hevc", "mpeg2") and b_frames > 0 and draws.random() < 0.5,
        pyramid=codec in ("h264", "hevc") and b_frames > 1 and draws.random() < 0.5,
        rate=rate,
        start=draws.choice([0, 0, 3, 100]) if container in TIMED else 0,
        orientation=draws.randint(1, 7) if turned else 0,
        matrix=matrix,
        by_message=by_message,
        pix_fmt=draws.choice(encoder.pix_fmts),
        color=draws.choice(["", "bt709", "smpte170m"]) if codec in ("h264", "hevc", "vp9", "mpeg2") else "",
        full_range=codec in ("h264", "hevc", "vp9") and draws.random() < 0.3,
        interlaced=bool(fields) and draws.random() < 0.25,
        lie=lie,
        seed=draws.randrange(2**16),
    )


def possible_lies(codec: str, container: str) -> list[str]:
    """The lies that a file of a codec and container can tell."""
    lies = [lie for lie, where in LIES.items() if not where or container in where]
    if codec == "snow":
        # Whether its decoder takes garbage for a picture depends on what the memory held before.
        lies.remove("garbage")
    # Codecs of fixed sizes have no second stream of another one.
    return [lie for lie in lies if codec not in FIXED_SIZES or "second_stream" not in lie or "noisy" in lie]
