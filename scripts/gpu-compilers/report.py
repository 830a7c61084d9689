#!/usr/bin/env python3
"""What AMD's compiler makes of every kernel in a directory of WGSL (MOEBIUS_DUMP_WGSL) or SPIR-V: one table per GPU family.

report.py [--families vega10,navi10,navi21,navi31,gfx1201] [--only WORD] [--isa DIR] [--wave N] [--json] DIR|FILE...

Columns: waves a SIMD holds of those it could (by registers and LDS); VGPRs; spilled registers and scratch; LDS bytes; code bytes; then of the
loop that loads most: trips, loads by width per lane and trip, VALU instructions per trip, per weight byte over the whole wave, waits and
branches per trip; "serial loops" ask for a load or two and wait, trip by trip; of the rest of the kernel VALU and LDS instructions; and the roof: the time that the VALU needs as a share of the time that
memory needs for the weights a wave reads. Above 1 the kernel is bound by arithmetic, whatever else is done; from about 0.5 on overlap counts.
"""
import argparse, collections, json, os, re, subprocess, sys

HERE = os.path.dirname(os.path.abspath(__file__))
COMPILER = os.environ.get("GPU_COMPILERS", f"{HERE}/target/release/gpu-compilers")
ICD = os.environ.get("RADV_ICD", "/usr/share/vulkan/icd.d/radeon_icd.json")
# Family: a board with it, SIMDs, lanes of a SIMD, GHz, GB/s, most waves of 64 on a SIMD (32: as many; RDNA holds both alike)
GPUS = {
    "vega10": ("Vega 64", 64 * 4, 16, 1.5, 484, 10),
    "navi10": ("RX 5700 XT", 40 * 2, 32, 1.8, 448, 20),
    "navi21": ("RX 6900 XT", 80 * 2, 32, 2.25, 512, 16),
    "navi31": ("RX 7900 XTX", 96 * 2, 32, 2.4, 960, 16),
    "gfx1201": ("RX 9070 XT", 64 * 2, 32, 2.9, 640, 16),
    "vangogh": ("Steam Deck", 8 * 2, 32, 1.6, 88, 16),
    "gfx1150": ("Radeon 890M", 16 * 2, 32, 2.9, 120, 16),
}
WIDTHS = {"b8": 1, "u8": 1, "i8": 1, "ubyte": 1, "sbyte": 1, "u16": 2, "i16": 2, "ushort": 2, "short": 2, "b16": 2, "d16_b16": 2,
          "b32": 4, "dword": 4, "b64": 8, "dwordx2": 8, "b96": 12, "dwordx3": 12, "b128": 16, "dwordx4": 16}
SLOW = re.compile(r"v_(exp|log|rcp|rsq|sqrt|sin|cos)_f32|v_mul_(lo|hi)_[ui]32|v_mad_u64")
WEIGHTS = re.compile(r"^(slab_\d|weight|src0)$")


class Loop:
    def __init__(self):
        self.count = collections.Counter()
        self.loads = collections.Counter()  # (buffer, bytes)
        self.slow = 0


def instructions(text):
    """(block, mnemonic, operands) in order; blocks in order of appearance."""
    block, at, out = 0, {}, []
    for line in text.splitlines():
        line = line.split(";")[0].rstrip()
        if re.match(r"^BB\d+:", line):
            block += 1
            at[line.strip(" :")] = block
        elif line.startswith("\t") and line.strip() and not line.strip().startswith("("):
            words = line.strip().split(None, 1)
            out.append((block, words[0], words[1] if len(words) > 1 else ""))
    return out, at


def loops_of(code, at):
    """First and last block of each loop, outermost first."""
    back = {}
    for block, name, operands in code:
        if re.match(r"s_c?branch", name):
            target = at.get(operands.strip())
            if target is not None and target <= block:
                back[target] = max(block, back.get(target, 0))
    return sorted(back.items(), key=lambda loop: (loop[0], -loop[1]))


def tally(code, names):
    """Of each block: counts."""
    blocks = collections.defaultdict(Loop)
    bound = {}
    for block, name, operands in code:
        loop = blocks[block]
        kind = "other"
        if match := re.match(r"s_load_(b128|dwordx4|b256|dwordx8|b512|dwordx16)$", name):
            kind = "smem"
            register, rest = re.match(r"s\[(\d+):\d+\],\s*(.*)", operands).groups()
            offset = re.search(r"(0x[0-9a-f]+|\d+)\s*$", rest.split("],")[-1])
            first = int(offset.group(1), 0) if offset and "null" not in rest else 0
            size = {"b128": 1, "dwordx4": 1, "b256": 2, "dwordx8": 2, "b512": 4, "dwordx16": 4}[match.group(1)]
            for i in range(size):
                bound[int(register) + 4 * i] = names[(first // 16) + i] if (first // 16) + i < len(names) else "?"
        elif re.match(r"s_(buffer_)?load", name):
            kind = "smem"
            loop.count["scalar data"] += name.startswith("s_buffer")
        elif match := re.match(r"(?:buffer|global|flat)_load_(?:format_)?(\w+)", name):
            kind = "load"
            resource = re.search(r"s\[(\d+):", operands)
            buffer = bound.get(int(resource.group(1)), "?") if resource else "?"
            loop.loads[buffer, WIDTHS.get(match.group(1).replace("d16_hi_", "").replace("d16_", ""), 4)] += 1
        elif re.match(r"(buffer|global|flat)_(store|atomic)", name):
            kind = "store"
        elif name.startswith("scratch_"):
            kind = "scratch"
        elif name.startswith("ds_"):
            kind = "lds"
        elif name.startswith("v_"):
            kind = "valu"
            loop.slow += bool(SLOW.match(name))
            loop.count["dot" if name.startswith("v_dot") else "packed" if name.startswith("v_pk") else "plain"] += 1
            loop.count["dual"] += name.startswith("v_dual")
            loop.count["mac"] += bool(re.search(r"fma|fmac|mac_f32|mad_f32", name))
            loop.count["convert"] += name.startswith("v_cvt")
        elif name.startswith("s_waitcnt") or name.startswith("s_wait_"):
            kind = "wait"
        elif re.match(r"s_c?branch", name):
            kind = "branch"
        elif name.startswith("s_barrier"):
            kind = "barrier"
        elif name.startswith("s_") and not re.match(r"s_(delay|nop|clause|inst|code)", name):
            kind = "salu"
        loop.count[kind] += 1
    return blocks


def total(blocks, wanted):
    result = Loop()
    for block, loop in blocks.items():
        if wanted(block):
            result.count += loop.count
            result.loads += loop.loads
            result.slow += loop.slow
    return result


def facts(source):
    """Constants, flags and storage buffers of a composed WGSL file."""
    consts = {name: int(value) for name, value in re.findall(r"^const (\w+): u32 = (\d+)u;", source, re.M)}
    flags = set(source.splitlines()[0].split(" ")) if source.startswith("//") else set()
    bindings = [name for _, name in sorted((int(n), name) for n, name in re.findall(r"@binding\((\d+)\) var<[^>]*> (\w+)", source))]
    return consts, flags, bindings


def trips_of(consts, flags):
    if "STAGED" in flags:
        return consts["ROW_QUADS"] // 8
    if "ROW_CHUNKS" in consts and "LANES" in consts:
        return -(-consts["ROW_CHUNKS"] // consts["LANES"])
    return None


def study(answer, family, source):
    executable = answer["executables"][0]
    row = {"file": os.path.basename(answer["file"]), "kernel": os.path.basename(answer["file"]).split(".")[0]}
    consts, flags, bindings = facts(source)
    row["what"] = " ".join(sorted(f for f in flags if f.isupper() and "=" not in f))
    row["tokens"], row["trips"] = consts.get("TOKENS"), trips_of(consts, flags)
    workgroup = 1
    for n in answer["workgroup"]:
        workgroup *= n
    wave = executable["subgroup"]
    board, simds, lanes, ghz, gbs, most = GPUS.get(family, ("?", 1, 32, 1, 1, 16))
    lds = executable["LDS size"]
    # RADV counts in waves of 32 from gfx10 on, by registers and by LDS alike.
    waves = executable["Subgroups per SIMD"] * (32 / wave if family != "vega10" else 1)
    row |= {"waves": waves, "occupancy": round(waves / most, 2)}
    row |= {"wg": workgroup, "wave": wave, "vgprs": executable["VGPRs"], "sgprs": executable["SGPRs"], "lds": lds,
            "spills": executable["Spilled VGPRs"] + executable["Spilled SGPRs"], "scratch": executable["Scratch size"],
            "code": executable["Code size"],
            "latency": executable["Latency"], "inverse": executable["Inverse Throughput"]}
    if not source:
        bindings = ["weight"] + ["x"] * 31  # of SPIR-V from elsewhere: ggml-vulkan binds the weights first
    code, at = instructions(executable["ir"]["Assembly"])
    blocks = tally(code, bindings)
    loops = loops_of(code, at)
    all_of = total(blocks, lambda _: True)
    row["instructions"] = sum(all_of.count[k] for k in ("valu", "salu", "smem", "load", "store", "lds", "branch", "barrier", "scratch"))
    hot = None
    for first, last in loops:
        inside = total(blocks, lambda b: first <= b <= last)
        weight = sum(n * width for (buffer, width), n in inside.loads.items() if WEIGHTS.match(buffer)) or \
            sum(n * width for (_, width), n in inside.loads.items()) / 1000
        if hot is None or weight > hot[0]:
            hot = (weight, first, last, inside)
    row["loops"] = len(loops)
    # Innermost loops that wait for one load, or two, before they ask for the next: a trip lasts as long as memory takes to answer.
    for first, last in loops:
        inside = total(blocks, lambda b: first <= b <= last)
        loads = inside.count["load"] + inside.count["scalar data"]
        innermost = not any(first <= a and b <= last and (a, b) != (first, last) for a, b in loops)
        row["serial"] = row.get("serial", 0) + (innermost and 0 < loads <= 2)
    cycles = wave / lanes
    if hot and hot[0] > 0:
        _, first, last, inside = hot
        nested = [(a, b) for a, b in loops if first <= a and b <= last and (a, b) != (first, last)]
        rest = total(blocks, lambda b: b < first or b > last)
        by_width = collections.Counter()
        weights = others = 0
        for (buffer, width), n in inside.loads.items():
            by_width["wx"[not WEIGHTS.match(buffer)], width] += n
            if WEIGHTS.match(buffer):
                weights += n * width
            else:
                others += n * width
        row |= {"loads": " ".join(f"{n}x{kind}{8 * width}" for (kind, width), n in sorted(by_width.items(), key=lambda kv: (kv[0][0], -kv[0][1]))),
                "weight_bytes": weights, "other_bytes": others, "loop_valu": inside.count["valu"], "loop_mac": inside.count["mac"],
                "loop_convert": inside.count["convert"], "loop_lds": inside.count["lds"],
                "loop_wait": inside.count["wait"], "loop_branch": inside.count["branch"], "loop_smem": inside.count["smem"],
                "loop_dot": inside.count["dot"], "loop_packed": inside.count["packed"], "loop_dual": inside.count["dual"],
                "rest_valu": rest.count["valu"], "rest_lds": rest.count["lds"], "nested": len(nested), "barriers": inside.count["barrier"]}
        narrow = sum(n for (buffer, width), n in inside.loads.items() if WEIGHTS.match(buffer) and width <= 4)
        wide = sum(n for (buffer, width), n in inside.loads.items() if WEIGHTS.match(buffer) and width > 4)
        row["narrow"], row["wide"] = narrow, wide
        if weights:
            row["loop_valu_per_byte"] = round((inside.count["valu"] + 3 * inside.slow) / weights, 2)
        if row["trips"] and weights:
            # Loops inside a hot one: over the eight quads of a staged step, once for full tiles and once for others, of which a step runs one; or over
            # the quads of a word, of a few tokens.
            again = total(blocks, lambda b: any(a <= b <= z for a, z in nested[:1]))
            other = total(blocks, lambda b: any(a <= b <= z for a, z in nested[1:]))
            inner = (8 if "STAGED" in flags else consts.get("CHUNK_QUADS", 1) if consts.get("TOKENS", 1) > 1 else 1) - 1 if nested else 0
            if inner == 0:
                other = Loop()
            loop_valu = inside.count["valu"] + 3 * inside.slow + inner * again.count["valu"] - other.count["valu"]
            row["loop_valu"], row["loop_mac"] = loop_valu, inside.count["mac"] + inner * again.count["mac"] - other.count["mac"]
            row["loop_lds"] += inner * again.count["lds"] - other.count["lds"]
            row["loop_valu_per_byte"] = round(loop_valu / weights, 2)
            valu = row["trips"] * loop_valu + rest.count["valu"] + 3 * rest.slow
            row["valu_per_byte"] = round(valu / (row["trips"] * weights), 2)
            row["fixed"] = round((rest.count["valu"] + 3 * rest.slow) / valu, 2)
            row["roof"] = round(valu * cycles / simds / ghz / (row["trips"] * weights * wave / gbs), 2)
    row["flags"] = verdict(row, consts, flags)
    return row


def verdict(row, consts, flags):
    bad = []
    if row["spills"]:
        bad.append(f"{row['spills']} spills")
    if row["scratch"]:
        bad.append(f"scratch {row['scratch']}")
    if row["occupancy"] < 0.5:
        bad.append(f"occupancy {row['occupancy']:.0%}")
    if row.get("narrow", 0) > row.get("wide", 0):
        bad.append("narrow weight loads")
    elif row.get("narrow", 0) and row.get("wide", 0):
        bad.append(f"{row['narrow']} dword loads beside {row['wide']} wide")
    if row.get("serial"):
        bad.append(f"{row['serial']} serial loops")
    if row.get("roof", 0) > 1:
        bad.append("ALU-bound")
    elif row.get("roof", 0) > 0.5:
        bad.append("ALU near")
    if row.get("fixed", 0) > 0.4:
        bad.append("most is not the loop")
    if row.get("loop_branch", 0) > 2 + 2 * row.get("nested", 0):
        bad.append(f"{row['loop_branch']} branches in loop")
    if row.get("weight_bytes") and row.get("loop_smem"):
        bad.append("descriptors loaded in loop")
    if row.get("weight_bytes") and not row.get("loop_dot") and not row.get("loop_packed"):
        bad.append("no dot/packed")
    return ", ".join(bad)


def compile_all(files, family, wave):
    env = dict(os.environ, RADV_FORCE_FAMILY=family, VK_DRIVER_FILES=ICD, MESA_SHADER_CACHE_DISABLE="1")
    command = [COMPILER, "--ir"] + (["--wave", str(wave)] if wave else []) + files
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return [json.loads(line) for line in done.stdout.splitlines()]


def table(rows):
    head = ["kernel", "tok", "wg/wave", "waves", "VGPR", "spill", "LDS", "code", "trips", "loads/lane/trip", "VALU/trip", "mac", "wait", "br", "rest VALU",
            "rest LDS", "VALU/B loop", "VALU/B", "roof", "flags"]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for r in rows:
        cells = [r.get("label") or r["kernel"], r["tokens"] or "", f"{r['wg']}/{r['wave']}", f"{r['waves']:.0f} {r['occupancy']:.0%}", r["vgprs"], r["spills"] or "", r["lds"], r["code"],
                 r["trips"] or "", r.get("loads", ""), r.get("loop_valu", ""), r.get("loop_mac", ""), r.get("loop_wait", ""), r.get("loop_branch", ""),
                 r.get("rest_valu", ""), r.get("rest_lds", ""), r.get("loop_valu_per_byte", ""), r.get("valu_per_byte", ""), r.get("roof", ""), r["flags"]]
        print("| " + " | ".join(str(cell) for cell in cells) + " |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+")
    parser.add_argument("--families", default="navi21,navi31")
    parser.add_argument("--only", help="files whose name contains this word")
    parser.add_argument("--isa", help="write the machine code of each to this directory")
    parser.add_argument("--wave", type=int)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    files = []
    for path in args.paths:
        files += [os.path.join(path, f) for f in sorted(os.listdir(path))] if os.path.isdir(path) else [path]
    files = [f for f in files if f.endswith((".wgsl", ".spv")) and "probe_" not in f and (not args.only or args.only in os.path.basename(f))]
    for family in args.families.split(","):
        rows = []
        for answer in compile_all(files, family, args.wave):
            if "error" in answer:
                print(f"{answer['file']}: {answer['error'][:300]}", file=sys.stderr)
                continue
            source = open(answer["file"]).read() if answer["file"].endswith(".wgsl") else ""
            row = study(answer, family, source) | {"family": family}
            rows.append(row)
            if args.isa:
                os.makedirs(args.isa, exist_ok=True)
                with open(f"{args.isa}/{row['file'][:120]}.{family}.s", "w") as f:
                    f.write(answer["executables"][0]["ir"]["Assembly"])
        if args.json:
            for row in rows:
                print(json.dumps(row))
        else:
            print(f"\n## {family} ({GPUS.get(family, ('?',))[0]})\n")
            table(rows)


main()
