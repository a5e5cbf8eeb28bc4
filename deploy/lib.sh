# Shell functions shared by deploy/quickstart and tests/run: packages, a private PostgreSQL and a
# private Mosquitto on loopback. Sourced by bash; needs no variable set.

# What building and running takes; tests/run adds its own.
MUSTER_PACKAGES="gcc libc6-dev meson ninja-build pkg-config libmicrohttpd-dev libgnutls28-dev
 libssl-dev libpq-dev libjansson-dev libinih-dev libsystemd-dev libcurl4-openssl-dev
 libpng-dev libqrencode-dev libcbor-dev libpaho-mqtt-dev libmosquitto-dev mosquitto-dev
 postgresql postgresql-client mosquitto mosquitto-clients curl openssl ca-certificates util-linux procps"

say() { printf '%s\n' "$*"; }
die() { printf '%s\n' "$*" >&2; exit 1; }

as_root() {
    if [ "$(id -u)" = 0 ]; then "$@"; elif command -v sudo >/dev/null; then sudo "$@"; else
        die "need root or sudo to run: $*"
    fi
}

# Installs those of the packages that are missing. Debian would start its own cluster and broker:
# policy-rc.d says no for the time of the installation, unless the machine has one already.
need_packages() {
    local missing=() p denied=0 rc=0
    for p in "$@"; do
        dpkg-query -W -f '${Status}\n' "$p" 2>/dev/null | grep -q 'install ok installed' || missing+=("$p")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    say "installing: ${missing[*]}"
    if [ ! -e /usr/sbin/policy-rc.d ]; then
        printf '#!/bin/sh\nexit 101\n' | as_root tee /usr/sbin/policy-rc.d >/dev/null
        as_root chmod 755 /usr/sbin/policy-rc.d
        denied=1
        trap 'as_root rm -f /usr/sbin/policy-rc.d' EXIT
    fi
    as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}" >"$LIB_LOG" 2>&1 || {
        as_root apt-get -q update >>"$LIB_LOG" 2>&1
        as_root env DEBIAN_FRONTEND=noninteractive apt-get -q -y install --no-install-recommends "${missing[@]}" >>"$LIB_LOG" 2>&1 || rc=$?
    }
    if [ "$denied" = 1 ]; then
        as_root rm -f /usr/sbin/policy-rc.d
        trap - EXIT
    fi
    [ "$rc" = 0 ] || { tail -n 20 "$LIB_LOG" >&2; die "apt-get failed; its output is in $LIB_LOG"; }
}

# PostgreSQL refuses to run as root. As root it runs as the user postgres, who may be unable to
# look into the checkout (below /root, or in a private folder): then with the one capability that
# lets it. Otherwise as the present user.
pg_run() {
    local dir=$1
    shift
    if [ "$(id -u)" != 0 ]; then
        "$@"
    elif setpriv --reuid=postgres --regid=postgres --init-groups test -x "$dir" 2>/dev/null; then
        setpriv --reuid=postgres --regid=postgres --init-groups "$@"
    else
        setpriv --reuid=postgres --regid=postgres --init-groups --inh-caps=+dac_override --ambient-caps=+dac_override "$@"
    fi
}

pg_bin() {
    local d
    d=$(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -V | tail -n 1)
    [ -n "$d" ] || die "PostgreSQL's programs are not in /usr/lib/postgresql"
    printf '%s' "$d"
}

# pg_start DIR PORT: makes the cluster and the database muster where they are missing, and starts.
# PG_OPTIONS are more options of the server, MUSTER_PG_ENV more of its environment (A=x B=y).
pg_start() {
    local dir=$1 port=$2 bin
    bin=$(pg_bin)
    mkdir -p "$dir"
    [ "$(id -u)" = 0 ] && chown postgres "$dir"
    if [ ! -e "$dir/data/PG_VERSION" ]; then
        pg_run "$dir" env LC_ALL=C.UTF-8 "$bin/initdb" -D "$dir/data" -A trust --no-sync -U muster -E UTF8 >"$dir.initdb.log" 2>&1 ||
            { cat "$dir.initdb.log" >&2; die "initdb failed"; }
    fi
    (cd / && pg_run "$dir" env ${MUSTER_PG_ENV:-} "$bin/pg_ctl" -D "$dir/data" -l "$dir/log" -w -t 60 \
        -o "-p $port -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c max_connections=200 ${PG_OPTIONS:-}" start) >/dev/null ||
        { tail -n 5 "$dir/log" >&2; die "PostgreSQL does not start on port $port"; }
    "$bin/psql" -h 127.0.0.1 -p "$port" -U muster -d postgres -Atqc "SELECT 1 FROM pg_database WHERE datname = 'muster'" | grep -q 1 ||
        "$bin/createdb" -h 127.0.0.1 -p "$port" -U muster muster
}

# pg_stop DIR [MODE]
pg_stop() {
    local dir=$1 mode=${2:-fast}
    [ -e "$dir/data/postmaster.pid" ] || return 0
    (cd / && pg_run "$dir" "$(pg_bin)/pg_ctl" -D "$dir/data" -m "$mode" -w -t 60 stop) >/dev/null 2>&1 || true
}

# broker_start DIR PORT PLUGIN CAPATH CERT KEY SERVICE_PEM: Mosquitto with the plugin, over TLS; CAPATH has
# the devices' CAs under their hashes (openssl rehash), SERVICE_PEM the certificates of musterd;
# BROKER_OPTIONS are more lines of its configuration. Writes DIR/pid
broker_start() {
    local dir=$1 port=$2
    mkdir -p "$dir"
    cat >"$dir/mosquitto.conf" <<CONF
listener $port 127.0.0.1
certfile $5
keyfile $6
capath $4
require_certificate true
allow_anonymous false
allow_zero_length_clientid false
persistence false
plugin $3
plugin_opt_service_certificates $7
${BROKER_OPTIONS:-}
CONF
    [ "$(id -u)" = 0 ] && printf 'user root\n' >>"$dir/mosquitto.conf"
    PATH=$PATH:/usr/sbin mosquitto -c "$dir/mosquitto.conf" >"$dir/log" 2>&1 &
    echo $! >"$dir/pid"
    wait_until 10 open_or_gone "$port" "$(cat "$dir/pid")" && port_open "$port" || die "Mosquitto does not start; see $dir/log"
}

# stop_pid FILE: ends the process whose id the file has, waiting for it
stop_pid() {
    local file=$1 pid
    [ -s "$file" ] || return 0
    pid=$(cat "$file")
    kill "$pid" 2>/dev/null || { rm -f "$file"; return 0; }
    wait_until 40 process_gone "$pid" || kill -KILL "$pid" 2>/dev/null
    rm -f "$file"
}

process_gone() { ! kill -0 "$1" 2>/dev/null; }
open_or_gone() { port_open "$1" || process_gone "$2"; }
port_open() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

# wait_until SECONDS COMMAND...: repeats the command until it succeeds
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.1
    done
}

# build FOLDER [MESON OPTIONS]: configures once, builds what has changed
build() {
    local folder=$1
    shift
    if [ ! -e "$folder/build.ninja" ]; then
        meson setup "$folder" "$@" >"$folder.setup.log" 2>&1 || { tail -n 20 "$folder.setup.log" >&2; die "meson setup failed"; }
        rm -f "$folder.setup.log"
    fi
    ninja -C "$folder" >"$folder/build.log" 2>&1 || { grep -A 5 -E 'error|FAILED' "$folder/build.log" | head -n 40 >&2; die "the build failed; see $folder/build.log"; }
}
