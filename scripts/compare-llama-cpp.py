#!/usr/bin/env python3
"""Writes a Mixtral checkpoint in Hugging Face layout as GGUF with f16 matrices, for scripts/compare-llama-cpp.sh.

    compare-llama-cpp.py MODEL OUT.gguf
"""

import json
import sys
from pathlib import Path

import gguf
import numpy as np
from safetensors import safe_open


def main(model: Path, out: Path) -> None:
    config = json.loads((model / "config.json").read_text())
    if config["model_type"] != "mixtral":
        sys.exit(f"{model} is a {config['model_type']} model: expected mixtral, the one family that llama.cpp calls llama")
    writer = gguf.GGUFWriter(out, "llama")
    write_config(writer, config)
    write_tokenizer(writer, json.loads((model / "tokenizer.json").read_text()))
    with safe_open(model / "model.safetensors", "np") as tensors:
        write_tensors(writer, config, lambda name: read(tensors, model, name))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def write_config(writer: gguf.GGUFWriter, config: dict) -> None:
    writer.add_name("comparison")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_key_length(config["head_dim"])
    writer.add_value_length(config["head_dim"])
    writer.add_rope_dimension_count(config["head_dim"])
    writer.add_rope_freq_base(config["rope_theta"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_expert_count(config["num_local_experts"])
    writer.add_expert_used_count(config["num_experts_per_tok"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)


def write_tokenizer(writer: gguf.GGUFWriter, tokenizer: dict) -> None:
    ids = {token: id for token, id in tokenizer["model"]["vocab"].items()}
    special = {token["content"]: token["id"] for token in tokenizer["added_tokens"]}
    ids.update(special)
    tokens = sorted(ids, key=ids.get)
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in tokenizer["model"]["merges"]]
    kinds = [gguf.TokenType.CONTROL if token in special else gguf.TokenType.NORMAL for token in tokens]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(special["<s>"])
    writer.add_eos_token_id(special["</s>"])
    writer.add_add_bos_token(True)


def write_tensors(writer: gguf.GGUFWriter, config: dict, tensor) -> None:
    def matrix(name: str, values: np.ndarray) -> None:
        writer.add_tensor(name, np.ascontiguousarray(values.astype(np.float16)))

    def vector(name: str, values: np.ndarray) -> None:
        writer.add_tensor(name, np.ascontiguousarray(values.astype(np.float32)))

    def turned(values: np.ndarray, heads: int) -> np.ndarray:
        """llama.cpp turns dimensions 2i and 2i + 1 together, the checkpoint i and i + half."""
        return values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)

    matrix("token_embd.weight", tensor("model.embed_tokens.weight"))
    vector("output_norm.weight", tensor("model.norm.weight"))
    matrix("output.weight", tensor("lm_head.weight"))
    for layer in range(config["num_hidden_layers"]):
        theirs, ours = f"model.layers.{layer}", f"blk.{layer}"
        vector(f"{ours}.attn_norm.weight", tensor(f"{theirs}.input_layernorm.weight"))
        vector(f"{ours}.ffn_norm.weight", tensor(f"{theirs}.post_attention_layernorm.weight"))
        query, key = tensor(f"{theirs}.self_attn.q_proj.weight"), tensor(f"{theirs}.self_attn.k_proj.weight")
        matrix(f"{ours}.attn_q.weight", turned(query, config["num_attention_heads"]))
        matrix(f"{ours}.attn_k.weight", turned(key, config["num_key_value_heads"]))
        matrix(f"{ours}.attn_v.weight", tensor(f"{theirs}.self_attn.v_proj.weight"))
        matrix(f"{ours}.attn_output.weight", tensor(f"{theirs}.self_attn.o_proj.weight"))
        vector(f"{ours}.ffn_gate_inp.weight", tensor(f"{theirs}.block_sparse_moe.gate.weight"))
        for name, part in [("gate", "w1"), ("down", "w2"), ("up", "w3")]:
            experts = range(config["num_local_experts"])
            stack = [tensor(f"{theirs}.block_sparse_moe.experts.{expert}.{part}.weight") for expert in experts]
            matrix(f"{ours}.ffn_{name}_exps.weight", np.stack(stack))


def read(tensors, model: Path, name: str) -> np.ndarray:
    """As f32. numpy knows no bf16, whose bits are the upper half of an f32."""
    if tensors.get_slice(name).get_dtype() != "BF16":
        return tensors.get_tensor(name).astype(np.float32)
    start, end, shape = place(model / "model.safetensors", name)
    with open(model / "model.safetensors", "rb") as file:
        file.seek(start)
        bits = np.frombuffer(file.read(end - start), "<u2").astype(np.uint32) << 16
    return bits.view(np.float32).reshape(shape)


def place(path: Path, name: str) -> tuple[int, int, list[int]]:
    """First byte, end and shape of a tensor in a safetensors file."""
    with open(path, "rb") as file:
        header_len = int.from_bytes(file.read(8), "little")
        entry = json.loads(file.read(header_len))[name]
    start, end = entry["data_offsets"]
    return 8 + header_len + start, 8 + header_len + end, entry["shape"]


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]))
