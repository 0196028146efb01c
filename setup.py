"""Packaging of mote_fast; the top-level folder kernels/ installs as ``mote_fast.kernels``."""

from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent

ON_LINUX = "platform_system == 'Linux'"
ON_LINUX_X86 = f"{ON_LINUX} and platform_machine == 'x86_64'"

# Reading shards, the training log, prediction tables, plots.
TRAIN = ["matplotlib>=3.8", "pyarrow>=15", "tensorboard>=2.15", "webdataset>=1.0"]
DALI = f"nvidia-dali-cuda130>=2; {ON_LINUX_X86}"
# The exporter and the runtime of dtype="int8".
INT8 = ["onnx>=1.17", "onnxruntime>=1.20", "onnxscript>=0.5"]
# The released recipe's decoder is the arm that benchmarks compare with.
BENCH = [f"decord; {ON_LINUX_X86}", "matplotlib>=3.8", *INT8]
TEST = ["pytest>=8", "pytest-benchmark>=5", "hypothesis>=6.100"]

setup(
    name="mote_fast",
    version="0.1.0",
    description="MoTE video recognition on CLIP: train and serve a mixture of temporal experts, fast",
    long_description=(HERE / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.10",
    packages=[*find_packages(include=["mote_fast", "mote_fast.*"]), "mote_fast.kernels"],
    # A bare top-level package named "kernels" would collide with another distribution's.
    package_dir={"mote_fast.kernels": "kernels"},
    package_data={"mote_fast": ["py.typed", "presets/*.md", "presets/*/*"]},
    install_requires=[
        "torch>=2.10",
        "torchvision",
        f"triton>=3.4; {ON_LINUX}",
        "open_clip_torch>=3.0",
        f"xformers>=0.0.33; {ON_LINUX_X86}",
        # The xformers wheel is linked against CUDA 12's runtime, which a CUDA-13 torch does not bring.
        f"nvidia-cuda-runtime-cu12; {ON_LINUX_X86}",
        # 19 changes the arguments that the decoding backend uses.
        "av>=14,<19",
        "torchcodec>=0.8",
        "numpy",
        "platformdirs>=4",
        "pyyaml",
        "safetensors>=0.5",
        "tqdm",
    ],
    extras_require={
        "cuda13": [DALI],
        "cuda12": [DALI.replace("130", "120")],
        "train": TRAIN,
        "int8": INT8,
        "bench": BENCH,
        "test": [*TEST, *TRAIN, *INT8],
        "dev": [*TEST, *TRAIN, *BENCH, DALI, "ruff>=0.12", "pyright>=1.1.400"],
    },
    entry_points={"console_scripts": ["mote-fast = mote_fast.cli:main"]},
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Typing :: Typed",
    ],
)
