"""Which files are opened: formats of videos by their content, and none that names other files.

FFmpeg decides a file's format by its content and its name, and each version decides a little differently: what one
takes for a video, another may take for a playlist, and open what that names. PyAV is given the formats that videos need
and no others; other libraries cannot be told, so they get only files whose first bytes leave no choice.
"""

from __future__ import annotations

import re

# FFmpeg's demuxers of videos and single pictures, in the form that it takes. Those left out name other files (hls,
# dash, concat, imf, sdp, image2, vobsub, ...), run scripts, read devices, or hold no video.
FORMATS = (
    "3gp,3g2,apng,asf,av1,avi,avs2,avs3,cavsvideo,dirac,dnxhd,dv,evc,flv,gif,gxf,h261,h263,h264,hevc,ivf,kux,"
    "m4a,m4v,matroska,mj2,mjpeg,mjpeg_2000,mov,mp4,mpeg,mpegts,mpegvideo,mxf,nsv,nut,obu,ogg,rm,roq,swf,vc1,"
    "vc1test,vvc,webm,wtv,yuv4mpegpipe,bmp_pipe,gif_pipe,j2k_pipe,jpeg_pipe,jpegls_pipe,jpegxl_pipe,png_pipe,"
    "ppm_pipe,qoi_pipe,tiff_pipe,webp_pipe"
)

# The protocols that FFmpeg may use for a path.
PROTOCOLS = "file"

# How files of these formats begin. The size of an MP4's first box is unknown, so its name is compared.
_STARTS = {
    "apng": rb"\x89PNG\r\n\x1a\n",
    "asf": rb"\x30\x26\xb2\x75\x8e\x66\xcf\x11",
    "avi": rb"(RIFF....AVI[ X]|ON2 ....ON2f)",
    "flv": rb"FLV",
    "gif": rb"GIF8",
    "ivf": rb"DKIF",
    "jpeg_pipe": rb"\xff\xd8\xff",
    "matroska": rb"\x1a\x45\xdf\xa3",
    "mov": rb"....(ftyp|moov|mdat|free|skip|wide|pnot|uuid|junk|pict)",
    "mxf": rb"\x06\x0e\x2b\x34\x02\x05\x01\x01\x0d\x01\x02",
    "nut": rb"nut/multimedia container\0",
    "ogg": rb"OggS",
    "png_pipe": rb"\x89PNG\r\n\x1a\n",
    "tiff_pipe": rb"(II\*\0|MM\0\*)",
    "webp_pipe": rb"RIFF....WEBP",
}

# What lists of other files begin with, and what they are. Manifests may begin with any text.
_LISTS = (
    (rb"#EXTM3U", "an HLS playlist"),
    (rb"ffconcat version", "a list of files to join"),
    (rb"v=\d\s", "a description of a network session"),
    (rb"(file|stream|#)\b.*\nfile ", "a list of files to join"),
    (rb"[^\0]*<MPD\b", "a DASH manifest"),
    (rb"[^\0]*<(CompositionPlaylist|SmoothStreamingMedia|smil|asx)\b", "a playlist"),
)

# Bytes of a file that tell its format.
HEAD_BYTES = 4096


def why_not_video(head: bytes) -> str | None:
    """Say what a file that begins with ``head`` is, if it is a list of other files; None otherwise."""
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    return next((kind for start, kind in _LISTS if re.match(start, text, re.IGNORECASE)), None)


def is_certain(head: bytes, format_name: str) -> bool:
    """Whether every FFmpeg takes a file that begins with ``head`` for ``format_name``, one of FFmpeg's names.

    Text before the first zero byte could be a manifest for some versions, even after a video's first bytes.
    """
    start = next((start for name, start in _STARTS.items() if name in format_name.split(",")), None)
    if start is None or not re.match(start, head, re.DOTALL):
        return False
    text = head.partition(b"\0")[0]
    return b"<" not in text and len(text) < len(head)
