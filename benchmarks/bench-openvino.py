"""Generates with OpenVINO GenAI as llm-run does, for scripts/bench-model --peer openvino.

Reads the GGUF file with its own reader, with its default settings, and says as
JSON what it measured. A first run with other prompts warms it up.
"""

import argparse
import json
import time
from pathlib import Path

import openvino
import openvino_genai


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    add = parser.add_argument
    add("--model", required=True)
    add("--prompts", type=Path, required=True, help="a prompt on each line")
    add("--steps", type=int, required=True, help="of decode, after the first token")
    add("--threads", type=int, required=True)
    add("--json", type=Path, required=True)
    return parser.parse_args()


class Generation:
    """A pipeline, and the seconds that it took to get it."""

    def __init__(self, model: str, threads: int, steps: int):
        start = time.perf_counter()
        self.pipeline = openvino_genai.LLMPipeline(model, "CPU", INFERENCE_NUM_THREADS=threads)
        self.load = time.perf_counter() - start
        self.config = openvino_genai.GenerationConfig(
            max_new_tokens=steps + 1, ignore_eos=True, do_sample=False
        )

    def run(self, prompts: list[str]) -> dict:
        """What happens between text and text: tokens come before, words after."""
        inputs = self.pipeline.get_tokenizer().encode(prompts)
        results = self.pipeline.generate(inputs, self.config)
        times = results.perf_metrics.raw_metrics
        (first,) = times.m_times_to_first_token
        produced = times.m_new_token_times
        return {
            "prompt_tokens": [int(count) for count in inputs.attention_mask.data.sum(axis=1)],
            "tokens": [len(tokens) for tokens in results.tokens],
            "prefill": first / 1e6,
            "decode": (produced[-1] - produced[0]) / 1e3,
        }


def main() -> None:
    arguments = parse_arguments()
    prompts = arguments.prompts.read_text().splitlines()
    generation = Generation(arguments.model, arguments.threads, arguments.steps)
    generation.run([" ".join(reversed(prompt.split())) for prompt in prompts])
    cache = openvino.Core().get_property("CPU", "KV_CACHE_PRECISION").get_type_name()
    found = generation.run(prompts) | {"load": generation.load, "cache": cache}
    arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
