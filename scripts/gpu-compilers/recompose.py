#!/usr/bin/env python3
"""Composes the shaders as they are now for the variants of dumped files, in a second and without the program: what a change of WGSL means.

recompose.py [-D FLAG|NAME=VALUE]... DUMP_DIR OUT_DIR [KERNEL...]

DUMP_DIR is of kernels.sh or MOEBIUS_DUMP_WGSL; -D adds flags and whole numbers that a new variant will have. What the Rust side chooses is that of the
dump.
"""
import argparse, os, re

SHADERS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../shaders")


def expand(source, flags, consts, imported):
    """As src/gpu/shader.rs: lines with their directives worked off."""
    out, branches, lines = [], [], iter(source.split("\n"))
    for line in lines:
        active = all(branches)
        if line.startswith("#ifdef "):
            branches.append(line[7:].strip() in flags)
        elif line.rstrip() == "#else":
            branches[-1] = not branches[-1]
        elif line.rstrip() == "#endif":
            branches.pop()
        elif line.startswith("#for "):
            placeholder, count = line[5:].split(" in ")
            body, depth = [], 1
            for inner in lines:
                depth += inner.startswith("#for ") - (inner.rstrip() == "#end")
                if depth == 0:
                    break
                body.append(inner)
            if active:
                count = count.strip()
                for i in range(int(count) if count.isdigit() else consts[count]):
                    out += expand("\n".join(body).replace("$" + placeholder.strip(), str(i)), flags, consts, imported)
        elif line.startswith("#import "):
            name = line[8:].strip()
            if active and name not in imported:
                imported.add(name)
                out += expand(open(f"{SHADERS}/lib/{name}.wgsl").read(), flags, consts, imported)
        elif active:
            out.append(line)
    return out


def recompose(kernel, dumped, defined):
    first = dumped.split("\n", 1)[0]
    prelude = dict(re.findall(r"^(const (?:\w+): (?:u32|f32)) = (.*);$", dumped.split("\nstruct ")[0].split("\nfn ")[0], re.M))
    words = first.split(": ", 1)[1].split(" ")
    names = [word.split("=")[0] for word in words if "=" in word]
    values = {name: prelude[key] for name in names for key in prelude if key.startswith(f"const {name}:")}
    types = {name: key.rsplit(" ", 1)[1] for name in names for key in prelude if key.startswith(f"const {name}:")}
    flags = {word for word in words if "=" not in word}
    for one in defined:
        name, equals, value = one.partition("=")
        if equals:
            values[name], types[name] = f"{value}u", "u32"
        else:
            flags.add(name)
    consts = {name: int(value.rstrip("u")) for name, value in values.items() if types[name] == "u32"}
    described = " ".join(sorted(flags) + [f"{name}={value.rstrip('uf')}" for name, value in sorted(values.items())])
    lines = [f"// {kernel}: {described}"] + [f"const {name}: {types[name]} = {value};" for name, value in sorted(values.items())]
    return "\n".join(lines + expand(open(f"{SHADERS}/{kernel}.wgsl").read(), flags, consts, set())) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-D", dest="defined", action="append", default=[])
    parser.add_argument("dump")
    parser.add_argument("out")
    parser.add_argument("kernels", nargs="*")
    args = parser.parse_args()
    os.makedirs(args.out, exist_ok=True)
    for file in sorted(os.listdir(args.dump)):
        kernel = file.split(".")[0]
        if file.endswith(".wgsl") and not kernel.startswith("probe_") and (not args.kernels or kernel in args.kernels):
            with open(f"{args.out}/{file}", "w") as out:
                out.write(recompose(kernel, open(f"{args.dump}/{file}").read(), args.defined))


main()
