# Shell functions of tests/stack/run: a Docker engine of its own, base images made without an image
# registry, and stand-ins for the upstream images. Sourced by bash after deploy/lib.sh; wants $root
# (the checkout) and $cache (a folder that may outlive the run).

DEBIAN_MIRROR=${DEBIAN_MIRROR:-http://deb.debian.org/debian}
COMPOSE_PLUGIN=/usr/libexec/docker/cli-plugins/docker-compose

# Where no container engine can run, the run fails, and says how to leave it out on purpose.
engine_impossible() {
    die "no container engine can be started here: $1 (MUSTER_SKIP_CONTAINERS=1 leaves the container tests out)"
}

# Compose 2 is in trixie only; its package is one static program and is unpacked beside the cache,
# without adding trixie to this machine's sources.
compose_fetch() {
    local apt=$cache/apt
    [ -x "$cache/docker-compose" ] && return 0
    if [ -x "$COMPOSE_PLUGIN" ]; then
        cp "$COMPOSE_PLUGIN" "$cache/docker-compose"
        return 0
    fi
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial" "$apt/deb"
    printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s trixie main\n' "$DEBIAN_MIRROR" >"$apt/sources.list"
    set -- -q -o Dir::Etc::SourceList="$apt/sources.list" -o Dir::Etc::SourceParts=- -o Dir::State::Lists="$apt/lists" -o Dir::Cache="$apt/cache" -o APT::Sandbox::User=root
    apt-get "$@" update && (cd "$apt/deb" && apt-get "$@" download docker-compose) && dpkg-deb -x "$apt"/deb/docker-compose_*.deb "$apt/root" || return 1
    cp "$apt/root$COMPOSE_PLUGIN" "$cache/docker-compose"
    rm -rf "$apt"
}

# engine_start: sets DOCKER_HOST; the engine lives in $engine, which engine_stop removes
engine_start() {
    [ "$(id -u)" = 0 ] || engine_impossible "it takes root"
    ! ip link show docker0 >/dev/null 2>&1 || engine_impossible "another engine has docker0"
    engine=$(mktemp -d /tmp/muster-engine.XXXXXX)
    data=$cache/data.$$
    forward=$(sysctl -n net.ipv4.ip_forward)
    iptables_rules >"$engine/rules"
    mkdir -p "$engine/docker/cli-plugins" "$data"
    cp "$cache/docker-compose" "$engine/docker/cli-plugins/"
    export DOCKER_HOST=unix://$engine/socket DOCKER_CONFIG=$engine/docker
    dockerd --storage-driver=overlay2 --data-root="$data" --exec-root="$engine/exec" --pidfile="$engine/pid" -H "$DOCKER_HOST" >"$cache/dockerd.log" 2>&1 &
    wait_until 30 docker info >/dev/null 2>&1 || { tail -n 5 "$cache/dockerd.log" >&2; engine_impossible "dockerd does not answer; its log is $cache/dockerd.log"; }
}

iptables_rules() {
    local table
    for table in filter nat; do iptables -t "$table" -S 2>/dev/null | sed "s/^/$table /"; done
}

# Only what Docker made is taken away: rules and chains that were not there before and that name its
# chains or bridges, and its policy of FORWARD.
iptables_restore() {
    local table rule
    iptables_rules | grep -vxFf "$engine/rules" | grep -E 'DOCKER|docker0|br-[0-9a-f]{12}' >"$engine/added"
    grep -E '^[a-z]+ -A ' "$engine/added" | while read -r table rule; do
        # shellcheck disable=SC2086
        iptables -t "$table" -D ${rule#-A }
    done
    grep -E '^[a-z]+ -N ' "$engine/added" | while read -r table rule; do
        iptables -t "$table" -F "${rule#-N }"
        iptables -t "$table" -X "${rule#-N }"
    done
    grep -E '^filter -P FORWARD ' "$engine/rules" | while read -r table rule; do
        # shellcheck disable=SC2086
        iptables -t "$table" $rule
    done
}

engine_stop() {
    [ -n "${engine:-}" ] || return 0
    local containers
    containers=$(docker ps -aq 2>/dev/null)
    # shellcheck disable=SC2086
    [ -z "$containers" ] || docker rm -f $containers >/dev/null 2>&1
    docker network prune -f >/dev/null 2>&1
    stop_pid "$engine/pid"
    iptables_restore
    ip link delete docker0 2>/dev/null
    sysctl -q -w net.ipv4.ip_forward="$forward"
    grep -F "$engine/" /proc/mounts | awk '{print $2}' | sort -r | while read -r mount; do umount "$mount"; done
    rm -rf "$engine" "$data"
    engine=
}

# base_make RELEASE: a minimal Debian as the cached base-RELEASE.tar
base_make() {
    local release=$1 dir=$cache/debootstrap-$1
    [ -s "$cache/base-$release.tar" ] && return 0
    rm -rf "$dir"
    debootstrap --variant=minbase --include=ca-certificates "$release" "$dir" "$DEBIAN_MIRROR" >"$cache/debootstrap-$release.log" 2>&1 ||
        { tail -n 5 "$cache/debootstrap-$release.log" >&2; return 1; }
    # as the official images have it: apt keeps nothing
    printf 'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\nDPkg::Post-Invoke {"rm -f /var/cache/apt/archives/*.deb || true";};\n' >"$dir/etc/apt/apt.conf.d/docker-clean"
    tar -C "$dir" --exclude=./var/cache/apt/archives/* --exclude=./var/lib/apt/lists/* --exclude=./usr/share/doc/* --exclude=./usr/share/man/* \
        --exclude=./usr/share/locale/* --exclude=./dev/* -cf "$cache/base-$release.tar.new" . && mv "$cache/base-$release.tar.new" "$cache/base-$release.tar"
    rm -rf "$dir"
}

base_import() { docker import -c 'CMD ["bash"]' "$cache/base-$1.tar" "debian:$1-slim" >/dev/null; }

# The name an upstream image has in the compose file.
upstream_name() { sed -n "s/^ *image: \${[A-Z]*_IMAGE:-\(.*$1:.*\)}\$/\1/p" "$root/deploy/docker-compose.yml"; }

# Stand-ins from Debian's packages under the upstream names, with what the compose file relies on:
# paths, user ids, entry points.
standins_make() {
    local name file
    file=$cache/standins-$(cat "$root"/tests/stack/standin/* | sha256sum | cut -c 1-12).tar
    if [ -s "$file" ]; then
        docker load -q -i "$file" >/dev/null
        return
    fi
    rm -f "$cache"/standins-*.tar
    for name in postgres haproxy prometheus; do
        docker build -q -f "$root/tests/stack/standin/Dockerfile.$name" -t "$(upstream_name $name)" "$root/tests/stack/standin" || return 1
    done
    docker save -o "$file.new" "$(upstream_name postgres)" "$(upstream_name haproxy)" "$(upstream_name prometheus)" && mv "$file.new" "$file"
}
