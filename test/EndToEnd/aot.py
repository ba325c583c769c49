"""Compiled models: libraries that llm-run loads, objects that hosts link."""

import os
import re
import subprocess
from pathlib import Path

import suite
from tools import DEMANDED, EXACT, REPOSITORY, after, call, expected, run, scratch, shared, smollm2


def compile_model(source: Path, *options: str) -> Path:
    folder = scratch()
    module, library = folder / "model.mlir", folder / "model.so"
    call("LLM_IMPORT", source, "-o", module, *options)
    call("LLM_COMPILE", module, "-o", library)
    return library


def build(compiler: list[str], *sources: Path, include: Path) -> Path:
    """A program of a host, with no headers but its own and the runtime's."""
    program = scratch() / "program"
    warnings = ["-Wall", "-Wextra", "-Wpedantic", "-Werror"]
    folders = ["-I", str(include), "-I", str(REPOSITORY / "include")]
    runtime = Path(os.environ["LLM_RUNTIME"])
    libraries = [runtime, "-lm", f"-Wl,-rpath,{runtime.parent}"]
    subprocess.run(
        [*compiler, *warnings, *folders, "-o", program, *sources, *libraries], check=True
    )
    return program


@suite.check("aot-stories260K")
def ids() -> None:
    """The reference's ids, with exact numbers, and what fits neither."""
    folder = shared("models/stories260K")
    library = compile_model(folder, *EXACT)
    content = shared("models/stories260K/expected-stories260K-1.txt").read_text()
    prompt = [int(word) for word in after(content, "prompt_ids: ").split()]
    line = next(line for line in content.splitlines() if line.startswith("greedy_ids"))
    wanted = [int(word) for word in line.split(": ")[1].split()][len(prompt) - 1 :]
    text = ",".join(map(str, prompt))
    for block_size in (3, 16):
        options = ["--weights", folder, "--block-size", block_size]
        done = run(library, "--ids", text, "-n", len(wanted), *options)
        assert done.report["sequences"][0]["ids"] == wanted
    other = call("LLM_RUN", "-m", library, "--weights", smollm2(), "-p", "x", status=1)
    assert "not made of this model" in other.stderr, other.stderr


@suite.check("aot-smollm2")
def smollm2_ids() -> None:
    """The ids of the reference, with exact numbers."""
    library = compile_model(smollm2(), *EXACT)
    for name, count in DEMANDED.items():
        answer = expected(name)
        chat = ["--chat"] if name.startswith("chat") else []
        options = ["--weights", smollm2(), *chat, "-n", count]
        done = run(library, "-p", answer.text, *options)
        assert done.report["sequences"][0]["prompt_ids"] == answer.prompt_ids
        assert done.sequence(0) == answer.ids[:count], name


@suite.check("aot-smollm2-native")
def same_text() -> None:
    """A library computes what the same code compiled in place computes."""
    library = compile_model(smollm2(), "--weights-as", "native")
    options = ["-p", "Once upon a time", "-n", 48, "-t", 2]
    compiled = run(library, "--weights", smollm2(), *options)
    in_place = run(smollm2(), *options)
    assert compiled.report["sequences"] == in_place.report["sequences"]


@suite.check("aot-hosts")
def hosts() -> None:
    """The examples in C and C++."""
    examples = REPOSITORY / "examples"
    folder = scratch()
    call("LLM_COMPILE", examples / "embed.mlir", "-o", folder / "embed.o")
    sources = [examples / "embed.c", folder / "embed.o"]
    subprocess.run([build(["cc", "-std=c99"], *sources, include=folder)], check=True)
    cache = build(["c++", "-std=c++17"], examples / "cache.cpp", include=folder)
    subprocess.run([cache], check=True)


@suite.check("aot-foreign")
def foreign() -> None:
    """A library of another version of the ABI, no other field of which counts."""
    folder = scratch()
    source, library = folder / "foreign.c", folder / "foreign.so"
    source.write_text(
        '#include "llm/Runtime/CAPI.h"\n'
        "const llm_program *foreign_program(void) {\n"
        "  static const llm_program program = {\n"
        "      .struct_size = 8, .abi_version = LLM_ABI_VERSION + 1,\n"
        "      .weights = (const void *)8, .num_weights = 1 << 30};\n"
        "  return &program;\n"
        "}\n"
    )
    include = REPOSITORY / "include"
    command = ["cc", "-shared", "-fPIC", "-I", include, source, "-o", library]
    subprocess.run(command, check=True)
    done = call("LLM_RUN", "-m", library, "--weights", smollm2(), "-p", "x", status=1)
    assert "expected a program of ABI version" in done.stderr


@suite.check("aot-other-model")
def other_model() -> None:
    """Code with constants that are not those of the file, or with other results."""
    folder = scratch()
    module, library = folder / "model.mlir", folder / "model.so"
    call("LLM_IMPORT", smollm2(), "-o", module, "--weights-as", "native")
    made = module.read_text()
    epsilon = re.sub(r"(norm_epsilon\\22:)[^,]*", r"\g<1>0.5", made)
    logits = r"(?:%[\w.#]+, (%[\w.#]+ : )|(-> \())tensor<\?x49152xf32>[^!]*, (!llm)"
    silent = re.sub(logits, lambda m: (m[1] and m[1] or m[2]) + m[3], made)
    form = (
        "expected the program's first entry to be llm-import's, of 4 inputs, a cache "
        "and logits of f32 [rows, 49152]"
    )
    for text, message in [
        (epsilon, 'the program was not made of this model: its metadata are {"context"'),
        (silent, form),
    ]:
        assert text != made
        module.write_text(text)
        call("LLM_COMPILE", module, "-o", library)
        options = ["--weights", smollm2(), "-p", "x"]
        done = call("LLM_RUN", "-m", library, *options, status=1)
        assert message in done.stderr, done.stderr


@suite.check("install")
def installed() -> None:
    """Hosts and a compiler against an installed tree, which needs no other one."""
    build_folder = Path(os.environ["LLM_RUNTIME"]).resolve().parents[1]
    prefix, hosts = scratch(), scratch()
    install = ["cmake", "--install", build_folder, "--prefix", prefix]
    subprocess.run(install, check=True, stdout=subprocess.DEVNULL)
    examples = REPOSITORY / "examples"
    options = [f"-DCMAKE_PREFIX_PATH={prefix}", f"-DLLM_EXAMPLES={examples}"]
    source = REPOSITORY / "test" / "Install"
    subprocess.run(["cmake", "-S", source, "-B", hosts, *options], check=True)
    subprocess.run(["cmake", "--build", hosts, "--parallel", "2"], check=True)
    for host in ("cache-c", "cache-cpp", "embed"):
        subprocess.run([hosts / host], check=True)
    subprocess.run([hosts / "dialect", examples / "embed.mlir"], check=True)

    plugin = (hosts / "plugin").read_text()
    loads = [f"--load-dialect-plugin={plugin}", f"--load-pass-plugin={plugin}"]
    passes = "--pass-pipeline=builtin.module(llm-materialize-cache)"
    command = ["mlir-opt-22", examples / "embed.mlir", *loads, passes]
    lowered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "!llm.kv_handle" in lowered, lowered

    package = {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig"), **os.environ}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "llm-runtime"],
        check=True, capture_output=True, text=True, env=package,
    ).stdout.split()
    program = scratch() / "cache"
    subprocess.run(["cc", examples / "cache.c", "-o", program, *flags, "-lm"], check=True)
    libraries = {**os.environ, "LD_LIBRARY_PATH": str(prefix / "lib")}
    subprocess.run([program], check=True, env=libraries)

    for file in [*(prefix / "bin").iterdir(), Path(plugin)]:
        linked = subprocess.run(["ldd", file], check=True, capture_output=True, text=True)
        assert str(build_folder) not in linked.stdout, linked.stdout
        assert "not found" not in linked.stdout, linked.stdout
    os.environ["LLM_RUN"] = str(prefix / "bin" / "llm-run")
    done = run(smollm2(), "-p", "Once upon a time", "-n", 4)
    assert len(done.report["sequences"][0]["ids"]) == 4


suite.main()
