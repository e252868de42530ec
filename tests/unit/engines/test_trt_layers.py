"""How many attentions are one kernel is read from real kernels' names: it has to be able to say none."""

import json
from typing import Any

import pytest

from worker.engines.trt_layers import count_fused

GEMM = "sm90_xmma_gemm_f16f16_f16f16_f16_tn_n_tilesize128x128x64_warpgroupsize1x1x1"
LAYERS = 6
Said = dict[str, str]


def _layer(name: str, kind: str, tactic: str, metadata: str = "") -> Said:
    return {"Name": name, "LayerType": kind, "TacticName": tactic, "StreamId": "0", "Metadata": metadata}


def _products(index: int) -> list[Said]:
    """One layer of an encoder without its attention, the way the inspector says it."""
    return [
        _layer(f"layers.{index}.qkv_myl0_{9 * index}", "gemm", GEMM, f"[layers.{index}.qkv]"),
        _layer(f"__myl_AddCasMeaSub_myl0_{9 * index + 4}", "kgen", "__myl_AddCasMeaSub_0x6c5d5a", "[mixed_norm]"),
        _layer(f"layers.{index}.up_myl0_{9 * index + 5}", "gemm", GEMM, f"[layers.{index}.up]"),
    ]


def _unfused(index: int) -> list[Said]:
    """Attention in three kernels, all of which carry the name we gave to it."""
    of = f"[layers.{index}.attention]"
    return [
        _layer(f"layers.{index}.attention_qk_myl0_{9 * index + 1}", "gemm", GEMM, of),
        _layer(f"__myl_MaxSubExpSumDivMul_myl0_{9 * index + 2}", "kgen", "__myl_MaxSubExpSumDivMul_0xab", of),
        _layer(f"layers.{index}.attention_av_myl0_{9 * index + 3}", "gemm", GEMM, of),
    ]


def _fused(index: int) -> list[Said]:
    of = f"[layers.{index}.attention]"
    return [_layer(f"_gemm_mha_v2_myl0_{9 * index + 1}", "kgen", "_gemm_mha_v2_0x957a2fe283f77dcf35c1", of)]


def _json(*layers: Any) -> str:  # noqa: ANN401  # whatever stands in a list
    return json.dumps({"Layers": layers, "I/O Tensors": ["input_ids", "logits"]})


def _in_profile(number: int, layers: list[Said]) -> list[Said]:
    return [{**layer, "Name": f"{layer['Name']} [profile {number}]"} for layer in layers]


def test_no_attention_of_an_unfused_network_counts_whatever_its_layers_are_called() -> None:
    assert count_fused(_json(*(part for n in range(LAYERS) for part in _products(n) + _unfused(n)))) == 0


def test_every_attention_of_a_fused_network_counts_once() -> None:
    assert count_fused(_json(*(part for n in range(LAYERS) for part in _products(n) + _fused(n)))) == LAYERS


def test_the_attentions_that_are_fused_are_counted_and_no_others() -> None:
    mixed = [part for n in range(LAYERS) for part in _products(n) + (_unfused(n) if n in {1, 4} else _fused(n))]
    assert count_fused(_json(*mixed)) == LAYERS - 2


@pytest.mark.parametrize(
    ("name", "kind", "tactic"),
    [
        ("_gemm_mha_v2_myl0_17", "kgen", "_gemm_mha_v2_0x957a2fe283f77dcf35c142c1390a3e6a"),
        ("__mye8037_gemm_mha_v2", "kgen", ""),
        ("_gemv_mha_v1_myl0_3", "kgen", "_gemv_mha_v1_0x12"),
        ("layers.0.attention", "kMHA", ""),
        ("node_MatMul_3", "fusion", "fmha_v2_flash_attention_fp16_S_128_64_kernel_sm90"),
        ("node_MatMul_3", "kgen", "cudnn_generated_sdpa_sm90_flash_fprop"),
    ],
)
def test_a_kernel_that_computes_a_whole_attention_is_known_by_the_librarys_names(
    name: str, kind: str, tactic: str
) -> None:
    assert count_fused(_json(_layer(name, kind, tactic), *_products(0))) == 1


@pytest.mark.parametrize(
    ("name", "kind", "tactic"),
    [
        ("/encoder/layers.2/mha/attn/value/MatMul_myl0_16", "gemm", "sm80_xmma_gemm_f16f16_f16f16_f16_nn_n"),
        ("layers.0.attention", "gemm", GEMM),
        ("__myl_MaxSubExpSumDivMul_myl0_2", "kgen", "__myl_MaxSubExpSumDivMul_0xab"),
        ("_gemm_softmax_gemm", "kgen", "_gemm_softmax_0x12"),
        ("node_attention_softmax", "softmax", "gemmHalf_GEMMHALF"),
    ],
)
def test_products_and_softmaxes_are_no_fused_attention(name: str, kind: str, tactic: str) -> None:
    assert count_fused(_json(_layer(name, kind, tactic, "[ONNX Layer: /layers.0/attention/mha/MatMul]"))) == 0


def test_an_attention_in_two_kernels_of_one_layer_counts_once() -> None:
    assert count_fused(_json(*_fused(3), _layer("_gemm_mha_v2_split", "kgen", "", "[layers.3.attention]"))) == 1


def test_kernels_of_a_graph_that_name_no_layer_count_each() -> None:
    kernels = [_layer(f"_gemm_mha_v2_myl0_{n}", "kgen", "_gemm_mha_v2_0x95", "[ONNX Layer: n_3]") for n in range(4)]
    assert count_fused(_json(*kernels)) == len(kernels)


def test_of_several_profiles_the_one_with_the_fewest_counts() -> None:
    fused = [part for n in range(LAYERS) for part in _fused(n)]
    unfused = [part for n in range(LAYERS) for part in _unfused(n)]
    assert count_fused(_json(*fused, *_in_profile(1, fused), *_in_profile(2, fused))) == LAYERS
    assert count_fused(_json(*fused, *_in_profile(1, fused[1:]))) == LAYERS - 1
    assert count_fused(_json(*fused, *_in_profile(1, unfused))) == 0
    assert count_fused(_json(*_products(0), *_in_profile(0, fused), *_in_profile(1, fused))) == LAYERS


def test_layers_that_are_said_by_name_alone_are_counted_too() -> None:
    assert count_fused(_json("layers.0.attention", "_gemm_mha_v2_myl0_1", "_gemm_mha_v2_myl0_9")) == 2


@pytest.mark.parametrize("said", ["", "none", "[]", "{}", '{"Layers": 3}', '{"Layers": []}'])
def test_what_does_not_say_is_not_counted(said: str) -> None:
    assert count_fused(said) is None
