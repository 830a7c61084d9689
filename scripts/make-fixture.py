#!/usr/bin/env python3
"""Makes a fixture of tests/golden/fixtures: a tiny random checkpoint in hub layout, with what transformers computes from it.

    make-fixture.py NAME TOKENIZER-FROM OUT

NAME is one of CONFIGS below, TOKENIZER-FROM a fixture whose tokenizer is copied, OUT the directory to write. Needs torch, transformers,
safetensors and numpy.

Weights are random, rounded to bf16, and drawn again until noise of 1e-4 on the input of a router changes no chosen expert and every step of
the greedy text wins by at least 2e-3. Everything is computed in f32 from the values as stored.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
import transformers
from safetensors import safe_open
from safetensors.torch import load_file, save_file

NOISE = 1e-4
MIN_GAP = 2e-3
NEW_TOKENS = 32
ATTEMPTS = 200
PROMPT_LENGTHS = {"one": 1, "text17": 17, "text64": 64, "long": 115}

COMMON = dict(
    hidden_size=48,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=512,
    vocab_size=360,
    bos_token_id=None,
    pad_token_id=354,
    eos_token_id=354,
    tie_word_embeddings=False,
)

# Class of the model, its config, and notes.
CONFIGS = {
    "solar_open": (
        "SolarOpenForCausalLM",
        COMMON
        | dict(
            head_dim=16,
            moe_intermediate_size=20,
            n_routed_experts=8,
            n_shared_experts=1,
            num_experts_per_tok=3,
            n_group=1,
            topk_group=1,
            norm_topk_prob=True,
            routed_scaling_factor=1.5,
            rms_norm_eps=1e-5,
            rope_parameters=dict(
                rope_type="yarn", rope_theta=1e6, factor=2.0, original_max_position_embeddings=256, partial_rotary_factor=1.0
            ),
        ),
        ["every layer has experts; no norm of query and key; yarn"],
    ),
    "exaone_moe": (
        "ExaoneMoeForCausalLM",
        COMMON
        | dict(
            num_hidden_layers=4,
            head_dim=16,
            intermediate_size=60,
            moe_intermediate_size=20,
            num_experts=8,
            num_experts_per_tok=3,
            num_shared_experts=1,
            n_group=2,
            topk_group=1,
            norm_topk_prob=True,
            routed_scaling_factor=2.5,
            first_k_dense_replace=1,
            sliding_window=24,
            sliding_window_pattern=4,
            layer_types=["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
            rope_parameters=dict(rope_type="default", rope_theta=1e6),
        ),
        ["full attention has no positions; windows of 24"],
    ),
    "mellum": (
        "MellumForCausalLM",
        COMMON
        | dict(
            head_dim=16,
            intermediate_size=60,
            moe_intermediate_size=20,
            num_experts=8,
            num_experts_per_tok=3,
            norm_topk_prob=True,
            sliding_window=24,
            layer_types=["sliding_attention", "full_attention", "sliding_attention"],
            mlp_layer_types=["sparse", "sparse", "dense"],
            rope_parameters=dict(
                full_attention=dict(
                    rope_type="yarn", rope_theta=5e5, factor=4.0, original_max_position_embeddings=128, beta_fast=32.0, beta_slow=1.0
                ),
                sliding_attention=dict(rope_type="default", rope_theta=1e4),
            ),
        ),
        ["a rotary embedding for each type of layer; windows of 24"],
    ),
    "hy_v3": (
        "HYV3ForCausalLM",
        COMMON
        | dict(
            head_dim=16,
            intermediate_size=60,
            moe_intermediate_size=20,
            num_experts=8,
            num_experts_per_tok=3,
            num_shared_experts=1,
            router_scaling_factor=2.826,
            rope_parameters=dict(rope_type="default", rope_theta=11_158_840.0),
        ),
        ["sigmoid router with a bias for choosing, renormalised and scaled"],
    ),
    "qwen3_vl_moe": (
        "Qwen3VLMoeForConditionalGeneration",
        dict(
            text_config=COMMON
            | dict(
                head_dim=16,
                intermediate_size=60,
                moe_intermediate_size=20,
                num_experts=8,
                num_experts_per_tok=3,
                norm_topk_prob=True,
                rope_parameters=dict(rope_type="default", rope_theta=5e6, mrope_section=[4, 2, 2], mrope_interleaved=True),
            ),
            vision_config=dict(
                depth=1,
                hidden_size=16,
                intermediate_size=16,
                num_heads=2,
                out_hidden_size=48,
                deepstack_visual_indexes=[],
                num_position_embeddings=16,
            ),
            tie_word_embeddings=False,
        ),
        ["the language model of a multimodal wrapper; the tensors of its vision tower are left out"],
    ),
}


def main(name: str, tokenizer_from: Path, out: Path) -> None:
    class_name, values, notes = CONFIGS[name]
    model_class = getattr(transformers, class_name)
    config = model_class.config_class(**values)
    config._attn_implementation = "eager"
    tokens = json.loads((tokenizer_from / "expected.json").read_text())
    for attempt in range(1, ATTEMPTS + 1):
        torch.manual_seed(attempt)
        shutil.rmtree(out, ignore_errors=True)
        write_random(model_class(config), out)
        model = model_class.from_pretrained(out, dtype=torch.float32, attn_implementation="eager").eval()
        found = expected(model, prompts(tokens))
        if found:
            break
    else:
        sys.exit(f"no weights of {ATTEMPTS} are robust")
    tensors, facts = found
    save_file(tensors, out / "expected.safetensors")
    for file in ["tokenizer.json", "tokenizer_config.json"]:
        shutil.copy(tokenizer_from / file, out / file)
    tokenizer = transformers.PreTrainedTokenizerFast.from_pretrained(out)
    for greedy in facts["greedy"]:
        greedy["text"] = tokenizer.decode(greedy["ids"], skip_special_tokens=False, clean_up_tokenization_spaces=False)
    drop_vision(out)
    describe(out, name, attempt, notes, tokens, facts)
    print(f"{name}: attempt {attempt}, logits of deviation {facts['logits_std']:.2f}, least gap {facts['min_greedy_gap']:.4f}")


def prompts(tokens: dict) -> list[list[int]]:
    """Those of the fixture whose tokenizer it is, the last one cut to the length of ours."""
    return [prompt["input_ids"][:length] for prompt, length in zip(tokens["prompts"], PROMPT_LENGTHS.values())]


def write_random(model, out: Path) -> None:
    """Matrices that keep the size of what they are applied to, norms near one, and routers with a preference."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            fill(name, tensor)
        for name, tensor in model.named_buffers():
            if "e_score_correction_bias" in name:
                fill(name, tensor)
    model.to(torch.bfloat16).save_pretrained(out)
    path = out / "model.safetensors"
    save_file({key: as_published(key, value) for key, value in load_file(path).items()}, path, metadata={"format": "pt"})


def as_published(key: str, value: torch.Tensor) -> torch.Tensor:
    if "e_score_correction_bias" in key or "expert_bias" in key:
        return value.float()
    # Of Qwen3-VL `[experts, in, out]`, which transformers turns over where it can tell, and does not turn back.
    return value.transpose(1, 2).contiguous() if value.dim() == 3 and ".language_model." in key else value


def fill(name: str, tensor: torch.Tensor) -> None:
    noise = torch.randn(tensor.shape)
    if "e_score_correction_bias" in name:
        tensor.copy_(0.05 * noise)
    elif tensor.dim() == 1 and name.endswith("bias"):
        tensor.copy_(0.1 * noise)
    elif tensor.dim() == 1:
        tensor.copy_(1 + 0.15 * noise)
    elif "embed_tokens" in name:
        tensor.copy_(noise)
    else:
        fan_in = min(tensor.shape[-2:]) if tensor.dim() == 3 else tensor.shape[-1]
        gain = 2.0 if "lm_head" in name or name.endswith("gate.weight") else 1.2
        tensor.copy_(gain * noise / fan_in**0.5)


def routers(model) -> list[tuple[int, torch.nn.Module]]:
    """The module that chooses experts, by layer."""
    layers = decoder_layers(model)
    return [(index, layer.mlp.gate) for index, layer in enumerate(layers) if hasattr(layer.mlp, "experts")]


def decoder_layers(model):
    inner = model.model
    return getattr(inner, "language_model", inner).layers


@torch.no_grad()
def run(model, ids: list[int], noise: float = 0.0) -> tuple[torch.Tensor, dict, dict]:
    """Logits, what every router gave, and the residual stream after every layer."""
    routed, hidden, hooks = {}, {}, []
    for index, router in routers(model):
        if noise:
            hooks.append(router.register_forward_pre_hook(lambda _, args: (args[0] + noise * torch.randn_like(args[0]), *args[1:])))
        hooks.append(router.register_forward_hook(lambda _, args, out, index=index: routed.update({index: out})))
    for index, layer in enumerate(decoder_layers(model)):
        keep = lambda _, args, out, index=index: hidden.update({index: out[0] if isinstance(out, tuple) else out})
        hooks.append(layer.register_forward_hook(keep))
    logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0]
    for hook in hooks:
        hook.remove()
    return logits, routed, hidden


def sorted_choice(weights: torch.Tensor, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    order = ids.argsort(dim=-1)
    return weights.gather(-1, order), ids.gather(-1, order)


def expected(model, all_prompts: list[list[int]]) -> tuple[dict, dict] | None:
    """What is stored, or nothing where a choice is close."""
    tensors, greedy, gaps = {}, [], []
    deviations = []
    for index, ids in enumerate(all_prompts):
        logits, routed, hidden = run(model, ids)
        tensors[f"p{index}.logits"] = logits.contiguous()
        deviations.append(logits.std().item())
        for layer, (router_logits, weights, chosen) in routed.items():
            weights, chosen = sorted_choice(weights, chosen)
            tensors[f"p{index}.L{layer}.router_logits"] = router_logits.float().contiguous()
            tensors[f"p{index}.L{layer}.topk_w"] = weights.float().contiguous()
            tensors[f"p{index}.L{layer}.topk_idx"] = chosen.int().contiguous()
            for seed in range(3):
                torch.manual_seed(seed)
                noisy = run(model, ids, NOISE)[1][layer]
                if not torch.equal(sorted_choice(noisy[1], noisy[2])[1], chosen):
                    return None
        if index == 1:
            tensors |= {f"p1.L{layer}.hidden": value.reshape(len(ids), -1).contiguous() for layer, value in hidden.items()}
        if index in (1, 3):
            text, gap = continued(model, ids)
            cached = model.generate(
                torch.tensor([ids]), max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False, eos_token_id=None
            )
            gaps.append(gap)
            if gap < MIN_GAP or cached[0, len(ids) :].tolist() != text:
                return None
            greedy.append({"prompt": index, "ids": text, "hf_generate_cached": "same"})
    facts = {
        "prompts": [
            {"name": name, "input_ids": ids, "routers": [str(layer) for layer, _ in routers(model)]}
            for name, ids in zip(PROMPT_LENGTHS, all_prompts)
        ],
        "greedy": greedy,
        "min_greedy_gap": min(gaps),
        "logits_std": max(deviations),
    }
    return tensors, facts


def continued(model, ids: list[int]) -> tuple[list[int], float]:
    """The greedy text, computed anew for every token, and the least difference between the best and the second logit."""
    ids, gap = list(ids), float("inf")
    for _ in range(NEW_TOKENS):
        best = run(model, ids)[0][-1].topk(2)
        gap = min(gap, (best.values[0] - best.values[1]).item())
        ids.append(best.indices[0].item())
    return ids[-NEW_TOKENS:], gap


def drop_vision(out: Path) -> None:
    path = out / "model.safetensors"
    with safe_open(path, "pt") as file:
        kept = {key: file.get_tensor(key) for key in file.keys() if ".visual." not in key}
    save_file(kept, path, metadata={"format": "pt"})


def describe(out: Path, name: str, attempt: int, notes: list[str], tokens: dict, facts: dict) -> None:
    (out / "expected.json").write_text(
        json.dumps(
            {
                "format": 1,
                "arch": name,
                "seed": attempt,
                "dtype": "bf16",
                "oracle": {"transformers": transformers.__version__, "torch": torch.__version__, "compute": "float32 cpu eager"},
                "notes": notes,
                "encoder_decoder": False,
                **facts,
                "router_noise_robust": NOISE,
                "tolerance": {"atol": 0.002, "rtol": 0.001},
                "tokenizer": tokens["tokenizer"],
            },
            indent=1,
        )
        + "\n"
    )


if __name__ == "__main__":
    if len(sys.argv) != 4 or sys.argv[1] not in CONFIGS:
        sys.exit(__doc__ + "\nNAME: " + ", ".join(CONFIGS))
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
