"""How lit runs the tests: `lit build/release/test` runs all of them."""

import os

import lit.formats

config.name = "llm"
config.test_format = lit.formats.ShTest(execute_external=True)
config.suffixes = [".mlir", ".test"]
config.excludes = ["EndToEnd"]
config.test_source_root = os.path.join(config.llm_source, "test")
config.test_exec_root = os.path.join(config.llm_binary, "test")

tools = os.path.join(config.llm_binary, "bin")
config.environment["PATH"] = os.pathsep.join(
    [tools, config.llvm_tools_dir, os.environ["PATH"]]
)
# Debian's MLIR is not instrumented: what it allocates with headers that our own
# code shares must not be poisoned.
config.environment["ASAN_OPTIONS"] = (
    "detect_leaks=0:detect_container_overflow=0:allow_user_poisoning=0"
)

# Bad IR must not take the machine down: every RUN has a memory limit (which the
# address sanitizer's shadow would exceed) and a time limit.
limit = "timeout 120" if config.llm_sanitize else "prlimit --as=8192000000 timeout 120"
config.substitutions.append(("%llm-opt", f"{limit} {tools}/llm-opt"))
config.substitutions.append(("%llm-compile", f"{limit} {tools}/llm-compile"))
config.substitutions.append(("%llm-import", f"{limit} {tools}/llm-import"))
config.substitutions.append(("%mlir-opt", f"{limit} {config.llvm_tools_dir}/mlir-opt"))
libraries = [
    os.path.join(config.llvm_tools_dir, "..", "lib", f"libmlir_{name}.so")
    for name in ("c_runner_utils", "runner_utils")
]
config.substitutions.append(
    (
        "%mlir-runner",
        # A failed assertion prints to a buffer that abort does not flush.
        f"stdbuf -oL timeout 120 {config.llvm_tools_dir}/mlir-runner "
        f"-entry-point-result=void --shared-libs={','.join(libraries)}",
    )
)
config.substitutions.append(
    ("%specification", os.path.join(config.llm_source, "lib", "Conversion"))
)
if not config.llm_sanitize:  # stock mlir-opt loads no sanitized library
    config.available_features.add("plugin")
config.substitutions.append(("%plugin", os.path.join(config.llm_binary, "lib", "LLMPlugin.so")))
config.substitutions.append(("%include", os.path.join(config.llm_source, "include")))
config.substitutions.append(("%examples", os.path.join(config.llm_source, "examples")))
config.substitutions.append(("%python", config.python))
