#!/usr/bin/env bash
# A cluster on this machine to try eoray on: kind, the KubeRay operator, and the chart with its
# local profile. Run it again after a change: what is there is kept or brought up to date.
#
#   deploy/install-kind.sh            # needs docker, kind, kubectl, helm and the images (make image)
#   deploy/install-kind.sh delete     # removes the cluster and all that is in it
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

kind_version=v0.33.0
# Of kind's own release notes; an image belongs to one version of kind.
node_image=kindest/node:v1.35.8@sha256:07b2536e30b803ed61d1677a79df6115f798ce64c80f9e22f6ed45afd09323c0
kuberay_version=1.7.0
kuberay_charts=${KUBERAY_CHARTS:-https://ray-project.github.io/kuberay-helm/}
cluster=${EORAY_KIND_CLUSTER:-eoray}
namespace=${EORAY_NAMESPACE:-maps}
images=(eoray/eoray:dev eoray/eoray-submit:dev)

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 1
}

for program in docker kind kubectl helm; do
    command -v "$program" >/dev/null || fail "$program is not installed; see deploy/README.md"
done

if [ "${1:-}" = delete ]; then
    kind delete cluster --name "$cluster"
    exit 0
fi
[ "$#" -eq 0 ] || fail "unknown argument '$1'; give none, or delete"

case "$(kind version)" in
    *"$kind_version"*) ;;
    *) printf 'warning: kind is not %s; its node image may not fit\n' "$kind_version" >&2 ;;
esac
for image in "${images[@]}"; do
    docker image inspect "$image" >/dev/null 2>&1 \
        || fail "image $image is not built; make image TARGET=cpu, then TARGET=submit (deploy/README.md)"
done

if ! kind get clusters | grep -qx "$cluster"; then
    kind create cluster --name "$cluster" --image "$node_image" --wait 180s
fi
kind load docker-image --name "$cluster" "${images[@]}"

context=kind-$cluster
helm upgrade --install kuberay-operator kuberay-operator --repo "$kuberay_charts" \
    --version "$kuberay_version" --kube-context "$context" \
    --namespace kuberay-system --create-namespace --wait --timeout 5m

kubectl --context "$context" create namespace "$namespace" --dry-run=client --output yaml \
    | kubectl --context "$context" apply --filename -
kubectl --context "$context" label --overwrite namespace "$namespace" \
    pod-security.kubernetes.io/enforce=restricted
helm upgrade --install eoray helm/eoray --kube-context "$context" --namespace "$namespace" \
    --values helm/eoray/values-local.yaml --wait --timeout 5m

cat <<EOF

Next, in a run file with cluster: {context: $context, namespace: $namespace, image: eoray/eoray:dev}:
  eoray doctor --context $context --namespace $namespace
  eoray submit run.yaml
EOF
