#!/usr/bin/env bash
# Train the fr_regressor_v2 ensemble on a measured corpus; judging it is a step of its own.
#
#   CORPUS_JSONL  the corpus; at least 100 rows
#   CORPUS_ROOT   folder of the source clips, for the verdict
#   OUT_DIR       folder of the run, with logs/ in it

set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

corpus_jsonl="${CORPUS_JSONL:-$PWD/runs/phase_a/full_grid/per_frame_canonical6.jsonl}"
corpus_root="${CORPUS_ROOT:-$PWD/.workingdir2/netflix}"
out_dir="${OUT_DIR:-$PWD/runs/ensemble_v2_real}"

if [[ ! -f "$corpus_jsonl" ]]; then
  echo "error: corpus not found: $corpus_jsonl" >&2
  echo "Set CORPUS_JSONL, or measure one with scripts/dev/hw_encoder_corpus.py." >&2
  exit 2
fi

mkdir -p "$out_dir/logs"
log="$out_dir/logs/train_$(date -u +%Y%m%dT%H%M%SZ).log"
loso train --corpus "$corpus_jsonl" --out-dir "$out_dir" --seeds 0,1,2,3,4 2>&1 | tee "$log"

echo "[ensemble-v2-real] trained; log in $log"
printf '[ensemble-v2-real] next: python ai/scripts/validate_ensemble_seeds.py %q --corpus-root %q\n' \
  "$out_dir" "$corpus_root"
