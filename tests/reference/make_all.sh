#!/bin/sh
# Make every file in tests/goldens again, and before that the environment of the original if it is not there.
set -eu
cd "$(dirname "$0")/../.."
[ .venv-reference/.ready -nt tests/reference/requirements.txt ] || tests/reference/make_environment.sh
export PYTHONPATH=build  # gdino_build.golden and .pictures need numpy alone

original() {
    module=$1
    shift
    .venv-reference/bin/python -m "tests.reference.$module" "$@"
}

for model in demo swint swinb; do
    "${BIN:-.venv/bin}/gdino-build" save-random --profile $model-cpu out/random/$model.safetensors
    original make_goldens --model $model --weights out/random/$model.safetensors --out tests/goldens/${model}_random.npz
done
original make_goldens --model demo --weights demo/checkpoint.safetensors --out tests/goldens/demo_checkpoint.npz
original make_parameter_names
original make_prompt_goldens
original make_predict_goldens
original make_label_goldens
original make_resize_goldens
original make_picture_goldens
original make_batch_goldens
original make_config_goldens
original make_work_goldens --model swint --size 800 1216 --out tests/goldens/swint_work.json
for version in 4.57.6 5.23.0; do
    folder=out/transformers-$version
    "${PYTHON:-python3.11}" -m venv --clear "$folder"
    "$folder/bin/pip" install --quiet torch==2.13.0
    "$folder/bin/pip" install --quiet transformers==$version pillow
    "$folder/bin/pip" download --quiet --no-deps --dest "$folder" transformers==4.40.2
    converter=$folder/transformers-4.40.2-py3-none-any.whl
    "$folder/bin/python" -m tests.reference.make_hugging_face_names --converter "$converter"
done
