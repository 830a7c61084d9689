#!/usr/bin/env python3
"""Makes the fixtures `llama` and `qwen3`: tiny dense checkpoints of random weights with their logits and greedy continuations.

The forward pass below is written from the modelling code of transformers 4.57 (models/llama/modeling_llama.py, models/qwen3/modeling_qwen3.py and
`_compute_llama3_parameters` of modeling_rope_utils.py), in NumPy and f64, and shares nothing with Moebius. Needs the packages numpy and tokenizers:

    python3 tests/golden/make/dense.py        # writes tests/golden/fixtures/{llama,qwen3}
"""

import json
import math
import struct
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
# Tokenizer and prompts are those of another fixture.
SOURCE = FIXTURES / "qwen3_moe"
GREEDY = 32
SMALLEST_GAP = 2e-3

CONFIGS = {
    "llama": {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 64, "intermediate_size": 112, "num_hidden_layers": 3,
        "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 360, "rms_norm_eps": 1e-05, "rope_theta": 500000.0,
        "rope_scaling": {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 64},
        "max_position_embeddings": 512, "tie_word_embeddings": True, "attention_bias": False, "mlp_bias": False, "hidden_act": "silu",
    },
    "qwen3": {
        "architectures": ["Qwen3ForCausalLM"], "model_type": "qwen3", "hidden_size": 72, "intermediate_size": 96, "num_hidden_layers": 3,
        "num_attention_heads": 6, "num_key_value_heads": 3, "head_dim": 24, "vocab_size": 360, "rms_norm_eps": 1e-06, "rope_theta": 1000000.0,
        "rope_scaling": None, "max_position_embeddings": 1024, "tie_word_embeddings": False, "attention_bias": False, "hidden_act": "silu",
        "use_sliding_window": False, "sliding_window": None, "max_window_layers": 3,
    },
}
SHARED = {"bos_token_id": None, "eos_token_id": 353, "pad_token_id": 353, "torch_dtype": "bfloat16", "use_cache": True}


def rounded_to_bf16(values):
    """The nearest bf16, ties to even, as f32."""
    bits = values.astype(np.float32).view(np.uint32)
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000).astype(np.uint32).view(np.float32)


def weights(config, seed):
    random = np.random.default_rng(seed)
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    heads, kv_heads = config["num_attention_heads"], config["num_key_value_heads"]
    head_dim = config.get("head_dim", hidden // heads)
    matrix = lambda rows, cols, gain=1.0: random.normal(0, gain / math.sqrt(cols), (rows, cols))
    norm = lambda length: 1 + random.normal(0, 0.1, length)
    tensors = {"model.embed_tokens.weight": random.normal(0, 0.3, (vocab, hidden)), "model.norm.weight": norm(hidden)}
    if not config["tie_word_embeddings"]:
        tensors["lm_head.weight"] = matrix(vocab, hidden, 2.5)
    for layer in range(config["num_hidden_layers"]):
        name = f"model.layers.{layer}."
        tensors[name + "input_layernorm.weight"] = norm(hidden)
        tensors[name + "post_attention_layernorm.weight"] = norm(hidden)
        tensors[name + "self_attn.q_proj.weight"] = matrix(heads * head_dim, hidden, 2.0)
        tensors[name + "self_attn.k_proj.weight"] = matrix(kv_heads * head_dim, hidden, 2.0)
        tensors[name + "self_attn.v_proj.weight"] = matrix(kv_heads * head_dim, hidden)
        tensors[name + "self_attn.o_proj.weight"] = matrix(hidden, heads * head_dim, 1.5)
        tensors[name + "mlp.gate_proj.weight"] = matrix(inner, hidden, 1.5)
        tensors[name + "mlp.up_proj.weight"] = matrix(inner, hidden, 1.5)
        tensors[name + "mlp.down_proj.weight"] = matrix(hidden, inner, 1.5)
        if config["model_type"] == "qwen3":
            tensors[name + "self_attn.q_norm.weight"] = norm(head_dim)
            tensors[name + "self_attn.k_norm.weight"] = norm(head_dim)
    return {name: rounded_to_bf16(values) for name, values in tensors.items()}


def inverse_frequencies(config, head_dim):
    frequencies = 1.0 / config["rope_theta"] ** (np.arange(0, head_dim, 2) / head_dim)
    scaling = config["rope_scaling"]
    if scaling is None:
        return frequencies
    original, factor = scaling["original_max_position_embeddings"], scaling["factor"]
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    wavelengths = 2 * math.pi / frequencies
    smooth = (original / wavelengths - low) / (high - low)
    mixed = (1 - smooth) * frequencies / factor + smooth * frequencies
    slow = np.where(wavelengths > original / low, frequencies / factor, frequencies)
    is_between = (wavelengths <= original / low) & (wavelengths >= original / high)
    return np.where(is_between, mixed, slow)


def rms_norm(values, weight, eps):
    return values / np.sqrt((values**2).mean(-1, keepdims=True) + eps) * weight


def rotated(values, angles):
    """`values [T, heads, head_dim]`; dimension i rotates with dimension i + head_dim / 2."""
    half = values.shape[-1] // 2
    cosine, sine = np.cos(angles)[:, None], np.sin(angles)[:, None]
    first, second = values[..., :half], values[..., half:]
    return np.concatenate([first * cosine - second * sine, second * cosine + first * sine], -1)


def forward(config, tensors, ids):
    """Logits `[T, vocab]` and the residual stream after each layer."""
    heads, kv_heads, eps = config["num_attention_heads"], config["num_key_value_heads"], config["rms_norm_eps"]
    head_dim = config.get("head_dim", config["hidden_size"] // heads)
    angles = np.arange(len(ids))[:, None] * inverse_frequencies(config, head_dim)
    stream, after = tensors["model.embed_tokens.weight"][ids], []
    for layer in range(config["num_hidden_layers"]):
        get = lambda name: tensors[f"model.layers.{layer}.{name}.weight"]
        x = rms_norm(stream, get("input_layernorm"), eps)
        split = lambda name, count: (x @ get(f"self_attn.{name}").T).reshape(len(ids), count, head_dim)
        query, key, value = split("q_proj", heads), split("k_proj", kv_heads), split("v_proj", kv_heads)
        if config["model_type"] == "qwen3":
            query, key = rms_norm(query, get("self_attn.q_norm"), eps), rms_norm(key, get("self_attn.k_norm"), eps)
        query, key = rotated(query, angles), rotated(key, angles)
        key, value = (np.repeat(part, heads // kv_heads, 1) for part in (key, value))
        scores = np.einsum("qhd,khd->hqk", query, key) / math.sqrt(head_dim)
        scores = np.where(np.tri(len(ids), dtype=bool), scores, -np.inf)
        shares = np.exp(scores - scores.max(-1, keepdims=True))
        shares /= shares.sum(-1, keepdims=True)
        stream = stream + np.einsum("hqk,khd->qhd", shares, value).reshape(len(ids), -1) @ get("self_attn.o_proj").T
        x = rms_norm(stream, get("post_attention_layernorm"), eps)
        gate = x @ get("mlp.gate_proj").T
        stream = stream + (gate / (1 + np.exp(-gate)) * (x @ get("mlp.up_proj").T)) @ get("mlp.down_proj").T
        after.append(stream)
    head = tensors["model.embed_tokens.weight" if config["tie_word_embeddings"] else "lm_head.weight"]
    return rms_norm(stream, tensors["model.norm.weight"], eps) @ head.T, after


def greedy(config, tensors, prompt):
    """The continuation, and the smallest difference between the best two logits on the way."""
    ids, gap = list(prompt), math.inf
    for _ in range(GREEDY):
        best = np.sort(forward(config, tensors, ids)[0][-1])[-2:]
        gap = min(gap, best[1] - best[0])
        ids.append(int(np.argmax(forward(config, tensors, ids)[0][-1])))
    return ids[len(prompt):], gap


def write_safetensors(path, tensors, dtype):
    header, data, at = {}, b"", 0
    for name, values in sorted(tensors.items()):
        if dtype == "BF16":
            raw = (values.astype(np.float32).view(np.uint32) >> 16).astype("<u2").tobytes()
        else:
            raw = values.astype("<f4").tobytes()
        header[name] = {"dtype": dtype, "shape": list(values.shape), "data_offsets": [at, at + len(raw)]}
        data, at = data + raw, at + len(raw)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def make(family):
    config = {**CONFIGS[family], **SHARED}
    source = json.loads((SOURCE / "expected.json").read_text())
    tokenizer = Tokenizer.from_file(str(SOURCE / "tokenizer.json"))
    prompts = [prompt["input_ids"] for prompt in source["prompts"]]
    for seed in range(100):
        stored = weights(config, seed)
        tensors = {name: values.astype(np.float64) for name, values in stored.items()}
        texts = {prompt: greedy(config, tensors, prompts[prompt]) for prompt in (1, 3)}
        gap = min(gap for _, gap in texts.values())
        distinct = len({token for ids, _ in texts.values() for token in ids})
        if gap >= SMALLEST_GAP and distinct >= 12:
            break
    else:
        raise SystemExit(f"{family}: no seed keeps the best two logits apart")

    directory = FIXTURES / family
    directory.mkdir(exist_ok=True)
    outputs = {}
    for index, ids in enumerate(prompts):
        logits, after = forward(config, tensors, ids)
        outputs[f"p{index}.logits"] = logits
        if index == 1:
            outputs.update({f"p1.L{layer}.hidden": stream for layer, stream in enumerate(after)})
    write_safetensors(directory / "model.safetensors", stored, "BF16")
    write_safetensors(directory / "expected.safetensors", outputs, "F32")
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        (directory / name).write_text((SOURCE / name).read_text())
    (directory / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    expected = {
        "format": 1, "arch": family, "seed": seed, "dtype": "bf16",
        "oracle": {"numpy": np.__version__, "compute": "float64", "script": "tests/golden/make/dense.py"},
        "notes": ["dense: no layer has experts"], "encoder_decoder": False,
        "prompts": [{"name": prompt["name"], "input_ids": prompt["input_ids"], "routers": []} for prompt in source["prompts"]],
        "greedy": [{"prompt": prompt, "ids": ids, "text": tokenizer.decode(ids, skip_special_tokens=False)} for prompt, (ids, _) in texts.items()],
        "min_greedy_gap": gap, "greedy_distinct": distinct, "logits_std": float(outputs["p3.logits"].std()),
        "tolerance": source["tolerance"], "tokenizer": source["tokenizer"],
    }
    (directory / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    print(f"{family}: seed {seed}, smallest gap {gap:.4f}, {distinct} distinct tokens, logits spread {expected['logits_std']:.2f}")


if __name__ == "__main__":
    for name in CONFIGS:
        make(name)
