"""The rows of the paper's tables: what they report, the configuration that trains each, the released model of some.

Figures are percent top-1, of ViT-L/14 with 8 frames unless said. They are the paper's, not measurements of this
project.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

# Data sets, as figures name them. "K600 split 1" is the first of the three splits of "K600".
K400, UCF, HMDB, K600, K600_1, SSV2 = "K400", "UCF-101", "HMDB-51", "K600", "K600 split 1", "SSv2"
# Harmonic means: of the three zero-shot data sets, and of K400 and that, eq. (22).
HM_ZS, TRADE_OFF = "HM_ZS", "trade-off"

B16, L14 = "mote-b16-k400", "mote-l14-k400"


@dataclass(frozen=True)
class PaperRow:
    """A row of a table, or a point of a figure.

    Attributes:
        table: its table, such as "2b".
        name: the row.
        figures: what the paper reports, by data set; empty for a figure, which prints no numbers.
        config: the configuration that trains it, as in configs/; None if no training of ours belongs to the row.
        base: the configuration that ``config`` is a variation of.
        options: the options in which it differs, but for paths.
        model: name of the released model that has the row's figures, see ``mote_fast.list_models``; None without one.
        views: close-set views.
    """

    table: str
    name: str
    figures: Mapping[str, float]
    config: str | None = None
    base: str = "table1/mse"
    options: Mapping[str, Any] = field(default_factory=dict)
    model: str | None = None
    views: str = "4x3"


_DEFAULT = (86.8, 87.5, 78.9)


def _ablation(
    table: str, name: str, config: str, figures: tuple[float, float, float], base: str = "table1/mse", **options: Any
) -> PaperRow:
    """A row of K400, UCF-101 and K600; "model__experts" is the option "model.experts"."""
    named = {key.replace("__", "."): value for key, value in options.items()}
    return PaperRow(table, name, dict(zip((K400, UCF, K600), figures, strict=True)), config, base, named)


def _few_shot(data_set: str, folder: str, epochs: int, warmup: float, figures: Mapping[int, float]) -> list[PaperRow]:
    """The rows of one data set of Table 5, by the number of videos of a class."""
    options: dict[str, Any] = {"optim.epochs": epochs, "optim.warmup_epochs": warmup}
    if data_set == SSV2:
        options["data.augmentation"] = "ssv2"
    return [
        PaperRow("5", f"{data_set}, K {shots}", {data_set: top1}, f"table5/{folder}_k{shots}", "k400_vit_b_16", options)
        for shots, top1 in figures.items()
    ]


def _layers(name: str, base: str) -> list[PaperRow]:
    """The points of one line of Figure 1b that are no rows of Table 1."""
    return [
        PaperRow(
            "figure 1b", f"{name}, layers {count}", {}, f"figure1b/{name}_layers_{count}", base, {"model.layers": count}
        )
        for count in (1, 2, 4)
    ]


def _components(k400: float, ucf: float, hmdb: float, k600: float) -> dict[str, float]:
    return {K400: k400, UCF: ucf, HMDB: hmdb, K600_1: k600}


def _zero_shot(ucf: float, hmdb: float, k600: float) -> dict[str, float]:
    return {UCF: ucf, HMDB: hmdb, K600: k600}


def _main(k400: float, hm_zs: float, trade_off: float) -> dict[str, float]:
    return {K400: k400, HM_ZS: hm_zs, TRADE_OFF: trade_off}


ROWS: tuple[PaperRow, ...] = (
    PaperRow("1", "plain", _components(86.7, 82.6, 52.1, 72.8), "table1/plain", options={"model.header": "plain"}),
    PaperRow(
        "1", "experts", _components(85.5, 86.6, 56.3, 78.3), "table1/experts", options={"method.regulariser": "none"}
    ),
    PaperRow("1", "WMR", _components(86.8, 87.2, 56.6, 78.3), "table1/wmr", options={"method.mse_weight": 0.0}),
    PaperRow("1", "MSE", _components(86.8, 87.5, 57.0, 78.9), "table1/mse"),
    PaperRow(
        "1",
        "modulation",
        _components(86.8, 88.7, 61.4, 79.0),
        "table1/modulation",
        options={"model.modulation": True},
        model=L14,
    ),
    _ablation(
        "2a",
        "same, all",
        "table2/a_same_all",
        (86.7, 82.6, 72.8),
        model__expert_init="same",
        method__expert_data="all",
        method__regulariser="none",
    ),
    _ablation(
        "2a",
        "same, routed",
        "table2/a_same_routed",
        (86.3, 86.4, 77.9),
        model__expert_init="same",
        method__expert_data="routed",
    ),
    _ablation(
        "2a",
        "different, all",
        "table2/a_different_all",
        (86.8, 87.2, 79.0),
        model__expert_init="different",
        method__expert_data="all",
    ),
    _ablation(
        "2a",
        "different, routed",
        "table2/a_different_routed",
        _DEFAULT,
        model__expert_init="different",
        method__expert_data="routed",
    ),
    _ablation("2b", "3 experts", "table2/b_experts_3", (86.6, 86.7, 77.4), model__experts=3),
    _ablation("2b", "4 experts", "table2/b_experts_4", _DEFAULT, model__experts=4),
    _ablation("2b", "5 experts", "table2/b_experts_5", (86.7, 87.6, 78.5), model__experts=5),
    _ablation("2b", "6 experts", "table2/b_experts_6", (86.7, 87.1, 78.3), model__experts=6),
    _ablation("2c", "random routing", "table2/c_aggregation_random", (85.3, 85.4, 76.0), model__aggregation="random"),
    _ablation(
        "2c", "logits averaged", "table2/c_aggregation_ensemble", (86.0, 86.3, 77.5), model__aggregation="ensemble"
    ),
    _ablation("2c", "weights merged", "table2/c_aggregation_merge", _DEFAULT, model__aggregation="merge"),
    _ablation("2d", "fixed", "table2/d_routing_fixed", (86.7, 82.6, 72.8), method__routing="fixed", model__experts=1),
    _ablation("2d", "random", "table2/d_routing_random", (86.8, 86.9, 78.1), method__routing="random"),
    _ablation("2d", "multinomial", "table2/d_routing_multinomial", _DEFAULT, method__routing="multinomial"),
    _ablation("2e", "point", "table2/e_wmr_point", (86.1, 85.8, 78.0), method__regulariser="point"),
    _ablation(
        "2e",
        "region, beta 0.6",
        "table2/e_wmr_region_beta_0.6",
        _DEFAULT,
        method__regulariser="region",
        method__beta=0.6,
    ),
    _ablation(
        "2e",
        "region, beta 0.8",
        "table2/e_wmr_region_beta_0.8",
        (86.8, 87.2, 78.7),
        method__regulariser="region",
        method__beta=0.8,
    ),
    _ablation(
        "2e",
        "region, beta 1.0",
        "table2/e_wmr_region_beta_1.0",
        (86.7, 87.5, 78.5),
        method__regulariser="region",
        method__beta=1.0,
    ),
    *(
        _ablation(
            "2f",
            f"gamma {gamma}",
            f"table2/f_gamma_{gamma}",
            figures,
            "table1/modulation",
            model__modulation_gamma=gamma,
        )
        for gamma, figures in {
            0.04: (86.8, 88.6, 78.9),
            0.05: (86.8, 88.7, 79.0),
            0.06: (86.8, 88.6, 78.8),
            0.07: (86.8, 88.2, 78.6),
        }.items()
    ),
    PaperRow("3", "ViT-B/16", _zero_shot(83.4, 55.8, 70.2), model=B16),
    PaperRow("3", "ViT-L/14", _zero_shot(88.7, 61.4, 78.4), model=L14),
    PaperRow("4", "ViT-B/16, 1x1", _main(81.8, 67.9, 74.2), "table4/vit_b_16", "k400_vit_b_16", model=B16, views="1x1"),
    PaperRow("4", "ViT-B/16, 4x3", _main(83.0, 67.9, 74.7), "table4/vit_b_16", "k400_vit_b_16", model=B16),
    PaperRow("4", "ViT-L/14, 4x3", _main(86.8, 74.4, 80.1), "table4/vit_l_14", "k400_vit_l_14", model=L14),
    PaperRow(
        "4",
        "ViT-L/14, 16 frames, 4x3",
        _main(87.2, 74.8, 80.5),
        "table4/vit_l_14_f16",
        "k400_vit_l_14",
        {"data.frames": 16},
    ),
    *_few_shot(HMDB, "hmdb51", 10, 1.667, {2: 61.3, 4: 63.9, 8: 67.2, 16: 68.2}),
    *_few_shot(UCF, "ucf101", 10, 1.667, {2: 88.8, 4: 91.0, 8: 92.3, 16: 93.6}),
    *_few_shot(SSV2, "ssv2", 2, 0.333, {2: 7.3, 4: 8.5, 8: 9.5, 16: 12.2}),
    _ablation("7a", "whole FFN", "table7/a_design_ffn", _DEFAULT, model__expert_design="ffn"),
    _ablation("7a", "up and down", "table7/a_design_up_down", (86.7, 84.2, 74.1), model__expert_design="up_down"),
    _ablation("7a", "up", "table7/a_design_up", (86.1, 83.3, 73.6), model__expert_design="up"),
    _ablation("7a", "down", "table7/a_design_down", (86.3, 83.1, 73.2), model__expert_design="down"),
    *(
        _ablation("7b", f"K {k}", f"table7/b_top_k_{k}", figures, "table1/modulation", model__modulation_top_k=k)
        for k, figures in {1: (86.8, 88.9, 78.9), 5: (86.8, 88.7, 79.0), 10: (86.8, 88.5, 78.7)}.items()
    ),
    _ablation("7c", "labels", "table7/c_supervision_ce", _DEFAULT, method__regulariser_loss="ce"),
    _ablation("7c", "logits", "table7/c_supervision_kl", (86.0, 83.1, 72.5), method__regulariser_loss="kl"),
    _ablation("7c", "features", "table7/c_supervision_mse", (86.3, 86.2, 76.3), method__regulariser_loss="mse"),
    # A zero-shot K400, for models trained on UCF-101.
    PaperRow("7e", "plain", {UCF: 95.6, K400: 56.6}, "table7/e_ucf101_plain", options={"model.header": "plain"}),
    PaperRow("7e", "MoTE", {UCF: 96.1, K400: 66.3}, "table7/e_ucf101_mote", options={"model.modulation": True}),
    *(
        PaperRow(
            "7f", name, {K400: k400, K600: k600}, f"table7/f_temperature_{name}", options={"method.temperature": name}
        )
        for name, k400, k600 in (("discrete", 86.8, 78.9), ("normal", 86.5, 77.4), ("uniform", 86.0, 77.9))
    ),
    *_layers("plain", "table1/plain"),
    *_layers("mote", "table1/modulation"),
    PaperRow("figure 3", "CLIP-Mean", {}, "figure3/clip_mean", "k400_vit_l_14", {"model.header": "mean"}),
)

# Tables with a row whose model is released.
TABLES = tuple(dict.fromkeys(row.table for row in ROWS if row.model is not None))
