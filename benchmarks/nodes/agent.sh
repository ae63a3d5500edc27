#!/bin/sh
# Stands in for the two agents of a node (metrics and dashboard, runtime environments): says the
# ports that a raylet waits for, and waits. Nothing listens there.
for argument in "$@"; do
    case $argument in
    --session-dir=*) folder=${argument#*=} ;;
    --node-id=*) node=${argument#*=} ;;
    esac
done
for name in dashboard_agent_listen metrics_agent metrics_export runtime_env_agent; do
    file=$folder/${name}_port_$node
    printf 9 >"$file.$$" && mv "$file.$$" "$file"
done
exec sleep 100000000
