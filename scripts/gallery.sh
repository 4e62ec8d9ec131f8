#!/usr/bin/env bash
# Makes the pictures of plots/gallery anew, those of the README and of the lessons: runs the experiments and keeps one figure of
# each. About twenty minutes on two cores, most of them the Switch layers.
set -euo pipefail
export LC_ALL=C
cd "$(dirname "$0")/.."
bash scripts/setup.sh
parsimony() { cargo run --release --locked -q -- "$@"; }

# experiment, figure, picture
pictures() {
  cat <<'END'
quickstart accuracy-time quickstart
products accuracy-parameters products
large-batch time-to-target large-batch
press accuracy-parameters press
admm-starts-where-sgd-stops accuracy-time admm-starts-where-sgd-stops
switch-vs-dense facts-parameters switch-vs-dense
END
}

mkdir -p plots/gallery
pictures | while read -r experiment figure picture; do
  parsimony run "$experiment" < /dev/null
  parsimony report "runs/$experiment" > /dev/null
  # With several datasets each figure bears a name: real events sort before simulated ones.
  found=(plots/"$experiment"/"$figure"*.png)
  cp "${found[0]}" "plots/gallery/$picture.png"
  echo "plots/gallery/$picture.png: ${found[0]}"
done
