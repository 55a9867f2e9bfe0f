"""Time minivit's products of signs, in bits, against NumPy's sgemm on the layers of BinaryViT and DeiT-S.

Every binary linear layer of BinaryViT at 224 pixels, batch 1, counts with its (tokens, in, out), and each
down-sampling convolution with four times its channels; DeiT-S shows larger widths. sgemm runs as NumPy runs it by
default, and on OpenBLAS's AVX-512 kernels. Weights are packed beforehand; activations beforehand or within the time.
The ceiling is what one core can do of xor, popcount and add without touching memory.
"""

import argparse
import ctypes
import json
import math
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor

# name, times that it occurs in the network, tokens M, inputs K, outputs N
BINARY_VIT = [
    ("stage 1 q, output", 6, 3136, 64, 64),
    ("stage 1 k, v, reduction", 9, 49, 64, 64),
    ("stage 1 FFN in", 3, 3136, 64, 512),
    ("stage 1 FFN out", 3, 3136, 512, 64),
    ("down-sampling 1", 1, 784, 256, 128),
    ("stage 2 q, output", 8, 784, 128, 128),
    ("stage 2 k, v, reduction", 12, 49, 128, 128),
    ("stage 2 FFN in", 4, 784, 128, 1024),
    ("stage 2 FFN out", 4, 784, 1024, 128),
    ("down-sampling 2", 1, 196, 512, 256),
    ("stage 3 q, k, v, output", 32, 196, 256, 256),
    ("stage 3 FFN in", 8, 196, 256, 1024),
    ("stage 3 FFN out", 8, 196, 1024, 256),
    ("down-sampling 3", 1, 49, 1024, 512),
    ("stage 4 q, k, v, output", 16, 49, 512, 512),
    ("stage 4 FFN in", 4, 49, 512, 2048),
    ("stage 4 FFN out", 4, 49, 2048, 512),
]
DEIT_S = [
    ("DeiT-S q, k, v, output", 48, 197, 384, 384),
    ("DeiT-S FFN in", 12, 197, 384, 1536),
    ("DeiT-S FFN out", 12, 197, 1536, 384),
]
SHAPES = BINARY_VIT + DEIT_S
MEANING = {
    "product": "activations packed beforehand, int32",
    "packed": "with the packing of activations, int32",
    "scaled": "packed beforehand, float32 scale and bias",
}
LARGE = 50_000_000  # products of bits from which a layer counts as large
FLAGS = {"avx2", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_bitalg", "avx512_vpopcntdq", "popcnt"}
AVX512 = {"avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512cd"}  # what SKYLAKEX kernels need


def main():
    arguments = parse_arguments()
    flags, cores = in_fresh_process({}, describe_machine)
    print(f"{cores} cores, flags {' '.join(sorted(FLAGS & flags)) or 'unknown'}")
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load > 0.5:
        print(
            f"the machine is busy (load {load:.1f}): the best of many repetitions counts, "
            "but times on several threads, most of all sgemm's, mean little"
        )
    core_types = {"default": None} | ({"avx512": "SKYLAKEX"} if flags >= AVX512 else {})
    for threads in sorted({1, cores}, reverse=True):
        measured = {}
        for _ in range(arguments.rounds):  # in turn, so that a slow spell of the machine hits all
            for name, core_type in core_types.items():
                keep_best(measured, name, in_fresh_process(settings(threads, core_type), time_sgemm, arguments.seconds))
            keep_best(measured, "ours", in_fresh_process(settings(threads), time_ours, arguments.seconds))
        result = report(measured, threads)
    if arguments.json:
        print(json.dumps(result))  # of one thread, which comes last
    return 0


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=3, metavar="N", help="fresh processes for each side (default 3)")
    parser.add_argument(
        "--seconds", type=float, default=0.04, metavar="S", help="time for each measurement (default 0.04)"
    )
    parser.add_argument("--json", action="store_true", help="end with one line of JSON")
    arguments = parser.parse_args()
    if arguments.rounds < 1 or not 0 < arguments.seconds < 60:
        parser.error("--rounds must be at least 1, and --seconds above 0 and below 60")
    return arguments


def settings(threads, core_type=None):
    """Environment variables, None for one that must not be set."""
    return {"OPENBLAS_NUM_THREADS": str(threads), "MINIVIT_THREADS": str(threads), "OPENBLAS_CORETYPE": core_type}


def in_fresh_process(environment, function, *arguments):
    """Call ``function`` in a new interpreter with other environment variables, and return its result."""
    before = dict(os.environ)
    os.environ.update({name: value for name, value in environment.items() if value is not None})
    for name in (name for name, value in environment.items() if value is None):
        os.environ.pop(name, None)
    try:
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
            return pool.submit(function, *arguments).result()
    finally:
        os.environ.clear()
        os.environ.update(before)


# ---- In fresh processes: each imports only what its side needs, since OpenBLAS reads its settings once ----


def describe_machine():
    """The processor's flags and the number of cores that this process may use."""
    from minivit.blas import cpu_flags
    from minivit.kernels.threads import num_threads

    os.environ.pop("MINIVIT_THREADS", None)
    return cpu_flags(), num_threads()


def time_sgemm(seconds):
    """``core``, the kernels that OpenBLAS chose, and ``product``, the best seconds for each shape."""
    import numpy as np

    best = []
    for *_, m, k, n in SHAPES:
        x, weight = random_signs(m, k), random_signs(n, k)
        out = np.empty((m, n), np.float32)
        best.append(best_seconds(lambda x=x, w=weight.T, out=out: np.matmul(x, w, out=out), seconds))
    return {"core": openblas_core(), "product": best}


def time_ours(seconds):
    """Best seconds for each shape: ``product`` to int32, ``scaled`` to float32 with scale and bias, and ``packing`` the
    activations; and ``ceiling``, products of bits in a second."""
    import numpy as np

    from minivit.kernels.bits import aligned_empty, pack_signs
    from minivit.kernels.xnor import BinaryMatrix, xnor_gemm

    times = {"product": [], "scaled": [], "packing": []}
    for *_, m, k, n in SHAPES:
        x, weight = random_signs(m, k), random_signs(n, k)
        a, b, move = pack_signs(x), BinaryMatrix(pack_signs(weight), k), np.zeros(k, np.float32)
        scale = np.ones(n, np.float32)
        out, out_float = aligned_empty((m, n), np.int32), aligned_empty((m, n), np.float32)
        if not (xnor_gemm(a, b) == x @ weight.T).all():
            raise AssertionError(f"wrong product of ({m}, {k}) and ({n}, {k})")
        calls = {
            "product": lambda a=a, b=b, out=out: xnor_gemm(a, b, out=out),
            "scaled": lambda a=a, b=b, s=scale, out=out_float: xnor_gemm(a, b, s, s, out=out),
            "packing": lambda x=x, move=move: pack_signs(x, move),
        }
        for name, call in calls.items():
            times[name].append(best_seconds(call, seconds))
    return times | {"ceiling": measure_ceiling(seconds)}


def measure_ceiling(seconds):
    """Bits that one thread can xor, count and add in a second, in registers alone."""
    import numba
    from numba.core import cgutils
    from numba.extending import intrinsic

    from minivit.kernels.bits import call_llvm

    chains, lanes, rounds = 12, 32, 10_000  # chains that do not wait for one another, of vectors of 32 x 32 bits

    @intrinsic
    def count(typingctx, rounds):
        def codegen(context, builder, signature, arguments):
            ir = cgutils.ir
            vector = ir.VectorType(ir.IntType(32), lanes)
            sums = [
                cgutils.alloca_once_value(builder, ir.Constant(vector, list(range(start, start + lanes))))
                for start in range(chains)
            ]
            with cgutils.for_range(builder, arguments[0]):
                for total in sums:
                    old = builder.load(total)
                    differ = builder.xor(old, ir.Constant(vector, [0x55555555] * lanes))
                    builder.store(builder.add(old, call_llvm(builder, f"ctpop.v{lanes}i32", vector, differ)), total)
            everything = builder.load(sums[0])
            for total in sums[1:]:
                everything = builder.add(everything, builder.load(total))
            return call_llvm(builder, f"vector.reduce.add.v{lanes}i32", vector.element, everything)

        return numba.types.int32(numba.types.intp), codegen

    run = numba.njit(lambda rounds: count(rounds))
    return chains * lanes * 32 * rounds / best_seconds(lambda: run(rounds), seconds)


def random_signs(rows, columns):
    """+1 and -1, float32."""
    import numpy as np

    return np.random.default_rng(rows * columns).choice(np.array([-1, 1], np.float32), (rows, columns))


def best_seconds(call, seconds):
    """The shortest of many calls; the first one, which may compile, is not among them."""
    call()
    best, end = math.inf, time.perf_counter() + seconds
    while (start := time.perf_counter()) < end:
        call()
        best = min(best, time.perf_counter() - start)
    return best


def openblas_core():
    """The name of the kernels that NumPy's OpenBLAS runs, or "unknown"."""
    try:
        with open("/proc/self/maps") as maps:
            paths = {line.split(maxsplit=5)[-1].strip() for line in maps if "openblas" in line}
    except OSError:
        return "unknown"
    for library in map(ctypes.CDLL, sorted(paths)):
        for name in ("scipy_openblas_get_corename64_", "scipy_openblas_get_corename", "openblas_get_corename"):
            if hasattr(library, name):
                function = getattr(library, name)
                function.restype = ctypes.c_char_p
                return function().decode()
    return "unknown"


# ---- The report ----


def keep_best(measured, side, new):
    """Put the times ``new`` of one round into ``measured[side]``: the shorter ones stay."""
    old = measured.setdefault(side, new)
    for name, value in new.items():
        if isinstance(value, list):
            old[name] = [min(pair) for pair in zip(old[name], value)]
        elif name == "ceiling":
            old[name] = max(old[name], value)


def report(measured, threads):
    """Print the times of every layer and a summary; return the summary for JSON."""
    ours = measured.pop("ours")
    ours["packed"] = [sum(pair) for pair in zip(ours["product"], ours["packing"])]
    rates = [m * k * n / t for (*_, m, k, n), t in zip(SHAPES, ours["product"])]
    fractions = [rate / (threads * ours["ceiling"]) for rate in rates]
    print_layers(measured, ours, fractions, threads)
    result = {f"milliseconds_{kind}": round(1e3 * network_seconds(ours[kind]), 2) for kind in MEANING}
    print("all layers of BinaryViT, each as often as it occurs, milliseconds:")
    for kind, meaning in MEANING.items():
        print(f"  {meaning:44} {result[f'milliseconds_{kind}']:5.2f}")
    for side, times in measured.items():
        print(f"times as fast as sgemm ({side}, {times['core']} kernels), geometric mean over layers:")
        for label, kind in (("", "product"), ("_with_packing", "packed"), ("_scaled", "scaled")):
            ratios = [a / b for a, b in zip(times["product"], ours[kind])]
            binary_vit, deit_s = ratios[: len(BINARY_VIT)], ratios[len(BINARY_VIT) :]
            total = network_seconds(times["product"]) / network_seconds(ours[kind])
            print(
                f"  {MEANING[kind]:44} BinaryViT {geometric_mean(binary_vit):5.1f} "
                f"({min(binary_vit):.1f} to {max(binary_vit):.1f}; all its layers together {total:.1f}), "
                f"DeiT-S {geometric_mean(deit_s):5.1f}"
            )
            result[f"geomean{label}_over_{side}_sgemm"] = round(geometric_mean(binary_vit), 2)
    large = [f for f, (*_, m, k, n) in zip(fractions, BINARY_VIT) if m * k * n >= LARGE]
    result["fraction_of_ceiling"] = round(geometric_mean(large), 3)
    result["lowest_fraction_of_ceiling"] = round(min(large), 3)
    print(
        f"ceiling {ours['ceiling'] / 1e12:.2f} Tbit/s a thread; BinaryViT's {len(large)} layers of at least "
        f"{LARGE // 10**6} Mbit reach {geometric_mean(large):.0%} of it (geometric mean), the lowest {min(large):.0%}"
    )
    return result


def print_layers(sgemm, ours, fractions, threads):
    print(f"\n{threads} thread{'s' * (threads > 1)}, microseconds; ratios and percentages are those of `product`")
    sides = "".join(f"{'sgemm ' + side:>15}" for side in sgemm)
    columns = "".join(f"{title:>10}" for title in ("product", "packing", "scaled", "ratio", "ceiling"))
    print(f"{'':24} {'M':>5} {'K':>5} {'N':>5} {sides}{columns}")
    for i, (name, _, m, k, n) in enumerate(SHAPES):
        theirs = "".join(f"{times['product'][i] * 1e6:15.1f}" for times in sgemm.values())
        mine = "".join(f"{ours[kind][i] * 1e6:10.1f}" for kind in ("product", "packing", "scaled"))
        ratio = sgemm["default"]["product"][i] / ours["product"][i]
        print(f"{name:24} {m:5} {k:5} {n:5} {theirs}{mine}{ratio:10.1f}{fractions[i]:10.0%}")


def network_seconds(seconds):
    """Time of all binary layers of BinaryViT, each as often as it occurs."""
    return sum(layer[1] * t for layer, t in zip(BINARY_VIT, seconds))


def geometric_mean(values):
    return math.exp(sum(map(math.log, values)) / len(values))


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
