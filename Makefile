# `make demo` and `make test` need only Python >= 3.11 and a C++ compiler; they make .venv themselves.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
# A machine with an NVIDIA driver takes the CUDA build of torch. One without takes the release that the tests
# ran with; where pip is configured with an index or a folder of CPU wheels, that is the CPU build.
TORCH  ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo 'torch>=2.11' || echo 'torch==2.13.0')

.PHONY: demo coco_cc data-13m study test gpu-check gpu-check-a gpu-check-b lint clean

$(VENV)/.installed: pyproject.toml setup.py kernels/VERSION $(wildcard csrc/*.py csrc/*/*)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet '$(TORCH)' --editable '.[train,eval,dev]'
	touch $@

# The main job in small: a world with web captions, boxes and few scene graphs; ReX-VLM pretrained on it by 2 CPU
# processes (or 1, 2 or 4 GPUs); its zero-shot evaluation, with what five seeds gave (make study PLAN=configs/study/demo.yaml)
# under its figures. Started again, it goes on from the last checkpoint.
DEMO         ?= runs/demo
SPREAD       := benchmarks/results/study/demo
ACCELERATORS ?= $(shell nvidia-smi --list-gpus 2>/dev/null | wc -l | awk '{ print ($$1 >= 4 ? 4 : $$1 == 1 ? 1 : 2) }')

demo: $(VENV)/.installed data/relworld/world.json
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/deepspeed --num_accelerators $(ACCELERATORS) relvlm/train.py \
	    --deepspeed --deepspeed_config configs/deepspeed/zero1.json --config configs/mini/rex_vlm.yaml out=$(DEMO)
	$(BIN)/relvlm eval --checkpoint $(DEMO) --suite data/relworld/benchmarks --out $(DEMO)/eval
	$(BIN)/relvlm report $(DEMO) --out $(DEMO)/report --names "ReX-VLM mini" --spread $(SPREAD)

data/relworld/world.json: | $(VENV)/.installed  # a new install is no reason for a new world
	$(BIN)/relvlm data build relworld --preset mini --images 40000 --out data/relworld --overwrite

# Real photographs: COCO_CC holds images/ and annotations/{captions,instances}.json, SLICES the rows of VSR, VALSE and
# SugarCrepe about them, VOCAB is BERT's. ReX-VLM is trained until it overfits (configs/mini/coco_cc.yaml); the table says
# how far.
COCO_CC ?= ../shared/data/coco_cc
SLICES  ?= ../shared/data/benchmarks/coco_cc_slices
VOCAB   ?= ../shared/data/bert_vocab/vocab.txt

coco_cc: $(VENV)/.installed data/coco_cc/graphs/manifest.json
	$(BIN)/relvlm train --config configs/mini/coco_cc.yaml data.vocab=$(VOCAB)
	for task in vsr valse sugarcrepe; do $(BIN)/relvlm eval --checkpoint runs/coco_cc --task $$task \
	    --annotations $(SLICES) --images $(COCO_CC)/images --out runs/coco_cc/eval/$$task || exit 1; done
	$(BIN)/relvlm report runs/coco_cc --out runs/coco_cc/report

data/coco_cc/graphs/manifest.json: | $(VENV)/.installed
	$(BIN)/relvlm data build coco --captions $(COCO_CC)/annotations/captions.json --max-side 160 \
	    --instances $(COCO_CC)/annotations/instances.json --images $(COCO_CC)/images --out data/coco_cc/photos
	$(BIN)/relvlm data relate data/coco_cc/photos data/coco_cc/graphs --predicates "left of" "right of" "far from"

# The sets of the 13M mix (3M: CONFIG=configs/3m/rex_vlm.yaml) from the raw files in RAW, without the images of test sets.
# Says what is missing and where to get it, builds what can be built; the same command again goes on where it ended.
RAW       ?= raw
CONFIG    ?= configs/13m/rex_vlm.yaml
PROCESSES ?= $(shell nproc)

data-13m: $(VENV)/.installed
	$(BIN)/relvlm data recipe --config $(CONFIG) --raw $(RAW) --processes $(PROCESSES)

# Several models, seeds and budgets on RelWorld, one thread each, side by side (configs/study): tables with spreads and
# tests over seeds. Stopped and started again, it does what is left. SMOKE=--smoke is a trial of minutes.
PLAN  ?= configs/study/main.yaml
SMOKE ?=

study: $(VENV)/.installed
	$(BIN)/python -m relvlm.study $(PLAN) $(SMOKE)

# On every core a process of one thread. `make test ISA=avx2` is the same as on a machine without AVX-512, where
# results are rounded otherwise; its compiled layers have a folder of their own, since PyTorch's cache would hand them
# to processes with wider instructions, which then write past the end. The last line is pytest's.
WORKERS ?= logical
ISA     ?=
ifeq ($(ISA),avx2)
ISA_ENVIRONMENT := RELVLM_CPU_ISA=avx2 ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 \
    TORCHINDUCTOR_CACHE_DIR=$(abspath $(VENV))/compiled-avx2
else ifneq ($(ISA),)
$(error ISA=$(ISA): avx2, or nothing for all that the processor has)
endif

test: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(ISA_ENVIRONMENT) $(BIN)/python -m pytest \
	    --numprocesses $(WORKERS) --maxprocesses 8 --dist loadgroup --no-loadscope-reorder

# What only a GPU can show, in two commands of under nine minutes: its tests and sanitizers, kernels beside the machine's
# limits (a); the peers, the training step in bf16, Nsight (b). Runs with $(PYTHON), which must have torch and triton, and
# installs nothing; rows and a table go to $OUT, else $GPU_OUT, else runs/gpu-check (benchmarks/gpu_check).
gpu-check:
	$(PYTHON) benchmarks/gpu_check --part a b

gpu-check-a gpu-check-b: gpu-check-%:
	$(PYTHON) benchmarks/gpu_check --part $*

# Benchmarks are looked at for calls and names that no longer fit the package: no test runs them at full size.
lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy && \
	    MYPYPATH=kernels:benchmarks $(BIN)/mypy benchmarks slurm tests/drill.py tests/slurm/preemptions.py \
	    --allow-untyped-defs $(addprefix --disable-error-code ,index union-attr arg-type dict-item operator misc assignment \
	    return-value func-returns-value) && $(BIN)/lint-imports && $(BIN)/codespell

clean:
	rm -rf $(VENV) build *.egg-info
