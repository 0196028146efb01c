"""Packaging of mote_fast; the top-level folder kernels/ installs as ``mote_fast.kernels``."""

import re
from pathlib import Path
from runpy import run_path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = run_path(str(HERE / "mote_fast/version.py"))["__version__"]
# Links to files of the repository lead nowhere from a package index.
README = re.sub(r"!?\[([^\]]+)\]\((?!https?:)[^)]+\)", r"\1", (HERE / "README.md").read_text(encoding="utf-8"))

ON_LINUX = "platform_system == 'Linux'"
ON_LINUX_X86 = f"{ON_LINUX} and platform_machine == 'x86_64'"

# For the training log, prediction tables and plots.
TRAIN = ["matplotlib>=3.8.4", "pyarrow>=16", "tensorboard>=2.18"]
DALI = f"nvidia-dali-cuda130>=2.2; {ON_LINUX_X86}"
# Attention on GPUs; PyTorch's own runs the same flash kernels. The wheel is linked against CUDA 12's runtime, which a
# CUDA-13 torch does not bring.
XFORMERS = [f"xformers>=0.0.35; {ON_LINUX_X86}", f"nvidia-cuda-runtime-cu12>=12.8.90; {ON_LINUX_X86}"]
# The exporter and the runtime of ONNX exports and of dtype="int8". Exports need the runtime's table of files in memory,
# new in 1.24.1, which has no wheels for Python 3.10; int8 does not.
EXPORT = [
    "onnx>=1.17",
    "onnxruntime>=1.24.1; python_version >= '3.11'",
    "onnxruntime>=1.20; python_version < '3.11'",
    "onnxscript>=0.6",
]
# For runs over collections.
BATCH = ["fsspec>=2024.2", "pyarrow>=16"]
# The text towers and tokenizers of open_clip that transformers implements; the other two read its older tokenizers.
TEXT = ["transformers>=5.24", "sentencepiece>=0.2", "protobuf>=5"]
# Approximate search. Tests passed with this lower bound.
SEARCH = ["usearch>=2.16.9"]
# The server; python-multipart parses uploads as they come.
SERVE = ["fastapi>=0.120", "uvicorn>=0.38", "python-multipart>=0.0.20"]
# The official recipe's decoder is the baseline of the benchmarks.
BENCH = [f"decord>=0.6; {ON_LINUX_X86}", "matplotlib>=3.8.4", *EXPORT]
# webdataset reads the shards that we write.
# Playwright drives the system's Chromium, on the page of the server.
BROWSER = ["playwright>=1.50"]
TEST = ["pytest>=8.0", "pytest-benchmark>=5.0", "pytest-xdist>=3.6.1", "hypothesis>=6.100", "webdataset>=1.0.2"]
# For `make lint` and tools/versions.py.
TOOLS = ["ruff>=0.12", "pyright>=1.1.400", "import-linter>=2.3", "codespell[toml]>=2.3", "packaging>=24.0"]
# For `make docs`; not in the lock, because nothing that is measured or tested depends on it.
# The upper bounds keep a release that breaks the site out of CI.
DOCS = [
    "mkdocs-material>=9.8,<9.9",
    "mkdocstrings[python]>=1.0,<1.1",
    "latex2mathml>=3.77,<4",
    "nbclient>=0.11,<0.12",
    "ipykernel>=7.4,<8",
]

setup(
    name="mote_fast",
    version=VERSION,
    description="MoTE video recognition on CLIP: train and serve a mixture of temporal experts, fast",
    long_description=README,
    long_description_content_type="text/markdown",
    author="The mote_fast authors",
    license="Apache-2.0",
    license_files=["LICENSE"],
    keywords=["video recognition", "zero-shot", "open vocabulary", "CLIP", "mixture of experts", "PyTorch", "Triton"],
    project_urls={
        "Paper": "https://arxiv.org/abs/2410.10589",
        "Official code": "https://github.com/ZMHH-H/MoTE",
    },
    python_requires=">=3.10",
    packages=[*find_packages(include=["mote_fast", "mote_fast.*"]), "mote_fast.kernels"],
    # A bare top-level package named "kernels" would collide with another distribution's.
    package_dir={"mote_fast.kernels": "kernels"},
    package_data={"mote_fast": ["py.typed", "presets/*.md", "presets/*/*", "presets/*/*/*", "serve/page/*"]},
    install_requires=[
        # `make test-oldest` passed with these lower bounds; torch's bound decides those of the four packages after it.
        "torch>=2.11",
        "torchvision>=0.26",
        f"triton>=3.6; {ON_LINUX}",
        "torchcodec>=0.12",
        "open_clip_torch>=3.0",
        # Before 17.1, opening an MPEG program stream with decoder options is a segmentation fault; 19 changes arguments
        # that the decoding backend uses.
        "av>=17.1,<19",
        "numpy>=2.0",
        "platformdirs>=4.0",
        "pyyaml>=6.0",
        "safetensors>=0.5",
        "tqdm>=4.66",
    ],
    extras_require={
        "cuda13": [DALI],
        "cuda12": [DALI.replace("130", "120")],
        "xformers": XFORMERS,
        "train": TRAIN,
        "export": EXPORT,
        # Its first name.
        "int8": EXPORT,
        # A faster runtime of int8, at 180 MB.
        "openvino": [*EXPORT, "openvino>=2026.4"],
        "text": TEXT,
        "serve": SERVE,
        "search": SEARCH,
        "batch": BATCH,
        "ray": [*BATCH, "ray[data]>=2.60"],
        # A peer that is measured beside the library; its arm is left out where it is missing.
        "bench": [*BENCH, TEXT[0]],
        "docs": DOCS,
        "test": [*TEST, *TRAIN, *EXPORT, *SERVE, *BATCH, *BROWSER],
        "dev": [*TEST, *TRAIN, *BENCH, *SERVE, *BATCH, *BROWSER, *TOOLS, *XFORMERS, DALI],
    },
    entry_points={"console_scripts": ["mote-fast = mote_fast.cli:main"]},
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Developers",
        "Intended Audience :: Science/Research",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.10",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
)
