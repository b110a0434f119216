#!/usr/bin/env bash
# slurm-up.sh DIR - bring up a real, private SLURM cluster on this one machine, without systemd.
#
#   slurm-up.sh DIR              install what is missing, configure under DIR, start, wait until idle
#   . DIR/env.sh                 then sbatch, squeue, sacct, snakemake --executor slurm ... just work
#   slurm-node.sh DIR kill n2    pull the plug of one node (see there);  slurm-down.sh DIR ends it all
#
# Everything the cluster owns is under DIR: keys, sockets, state, database, logs, pid files.  Nothing in
# /etc is read or written; the only trace outside DIR is the Debian packages.  Daemons listen on
# 127.0.0.1 (slurmctld, slurmdbd, slurmd) or on unix sockets (munged, MariaDB).  Each slurmd lives in
# its own PID + UTS + mount namespace, so that killing that namespace's init takes the node's steps with
# it, as a power cut would, and no process can outlive slurm-down.sh.
# Safe to run again: what is already running is left as it is, what is not is started.
#
# Settings (environment):
#   SLURM_UP_NODES=2         virtual nodes n1..nN
#   SLURM_UP_CPUS=2          CPUs each node says it has (they may add up to more than the machine has)
#   SLURM_UP_MEM=32000       MB of memory each node says it has (more than the machine has: jobs ask for what large
#                            datasets need, and are held to it, but the tests' use little)
# Each node also says that it has one GPU, which is /dev/null: a job's gpu=1 goes its real way through sbatch and srun.
#   SLURM_UP_ACCT=mariadb    mariadb: slurmdbd on a private MariaDB, so sacct works
#                            none:    no accounting at all; use squeue (--slurm-status-command squeue)
#   SLURM_UP_OOM=auto        cgroup: the kernel enforces --mem through cgroup v1; the step ends OUT_OF_MEMORY
#                            gather: JobAcctGather samples RSS every second and kills; the step ends CANCELLED
#                            auto:   cgroup where /sys/fs/cgroup/memory is a writable v1 hierarchy, else gather
#   SLURM_UP_PORT=16817      slurmctld; slurmdbd is +2, the nodes +101, +102, ...
#   SLURM_UP_NODE_TIMEOUT=10 seconds without an answer before a node is DOWN (SlurmdTimeout)
#   SLURM_UP_REQUEUE=1       SLURM's own JobRequeue (1 is SLURM's default, and most clusters')
#   SLURM_UP_MIN_JOB_AGE=300 seconds for which the controller remembers a job that has ended
#   SLURM_UP_WAIT=90         seconds to wait for every node to be idle
set -euo pipefail

DIR=${1:?usage: slurm-up.sh DIR}
mkdir -p "$DIR"; DIR=$(cd "$DIR" && pwd -P)
N=${SLURM_UP_NODES:-2} CPUS=${SLURM_UP_CPUS:-2} MEM=${SLURM_UP_MEM:-32000}
ACCT=${SLURM_UP_ACCT:-mariadb} OOM=${SLURM_UP_OOM:-auto}
PORT=${SLURM_UP_PORT:-16817} NTO=${SLURM_UP_NODE_TIMEOUT:-10} WAIT=${SLURM_UP_WAIT:-90}
DBPORT=$((PORT + 2)) NPORT=$((PORT + 101))
T0=$(date +%s.%N) ISO0=$(date +%FT%T)
say() { printf '[slurm-up %6.2fs] %s\n' "$(echo "$(date +%s.%N) - $T0" | bc -l 2>/dev/null || python3 -c "import time;print(time.time()-$T0)")" "$*"; }
die() { say "FAILED: $*" >&2
        for f in "$DIR"/log/*.log; do [ -s "$f" ] && { echo "--- $f"; tail -n 6 "$f"; }; done >&2; exit 1; }

[ "$(id -u)" = 0 ] || die "run as root (slurmd and namespaces need it)"
# slurmstepd's socket DIR/spool/n1/n1_<jobid>.4294967291 must fit in sun_path (108 bytes)
[ ${#DIR} -le 70 ] || die "DIR is ${#DIR} characters long; unix socket paths allow about 70"

# ---- 1. packages ---------------------------------------------------------------------------------
need=""
have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
have munged    || need+=" munge"
have slurmctld || need+=" slurmctld"
have slurmd    || need+=" slurmd"
have sbatch    || need+=" slurm-client"
if [ "$ACCT" = mariadb ]; then
  have slurmdbd || need+=" slurmdbd"
  # not mariadb-server: its -core has the server, client-core my_print_defaults and the client
  have mariadbd || need+=" mariadb-server-core"
  have my_print_defaults || need+=" mariadb-client-core"
fi
mkdir -p "$DIR"/{etc,munge,state,spool,log,run}; chmod 755 "$DIR" "$DIR"/*/
if [ -n "$need" ]; then
  say "installing:$need"
  export DEBIAN_FRONTEND=noninteractive
  { apt-get update -q && apt-get install -y -q --no-install-recommends -o DPkg::Lock::Timeout=120 $need; } >"$DIR/log/apt.log" 2>&1 \
    || die "apt-get failed"
fi
say "$(/usr/sbin/slurmctld -V), munge, ${ACCT} accounting"

# ---- 2. helpers: start by pid file, never by name -------------------------------------------------
# DIR/run/NAME.pid holds "PID STARTTIME"; the start time guards against a recycled PID, and a zombie
# (pid 1 may be slow to reap) counts as dead.
started() { awk '{sub(/^.*\) /,""); print ($1=="Z" ? "Z" : $20)}' "/proc/$1/stat" 2>/dev/null; }
alive() { local p s; [ -s "$DIR/run/$1.pid" ] || return 1; read -r p s <"$DIR/run/$1.pid" || :; [ -n "$s" ] && [ "$(started "$p")" = "$s" ]; }
launch() { # launch NAME COMMAND...: detached from this shell's session, stdin and stdout
  local name=$1; shift
  alive "$name" && { say "$name already runs"; return 0; }
  setsid "$@" </dev/null >>"$DIR/log/$name.out" 2>&1 &
  local p=$!; sleep 0.05
  echo "$p $(started $p)" >"$DIR/run/$name.pid"
}
until_ok() { # until_ok SECONDS COMMAND...
  local end=$((SECONDS + $1)); shift
  until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || return 1; sleep 0.1; done
}

# ---- 3. configuration (written once, so that a second run meets the running cluster's) -------------
nodes="n[1-$N]"; [ "$N" = 1 ] && nodes=n1
ports="[$NPORT-$((NPORT + N - 1))]"; [ "$N" = 1 ] && ports=$NPORT
if [ ! -s "$DIR/etc/slurm.conf" ]; then
  [ -s "$DIR/munge/munge.key" ] || /usr/sbin/mungekey -c -k "$DIR/munge/munge.key"
  if [ "$OOM" = auto ]; then
    OOM=cgroup
    for c in memory freezer cpuacct; do
      mkdir "/sys/fs/cgroup/$c/slurm-up.$$" 2>/dev/null && rmdir "/sys/fs/cgroup/$c/slurm-up.$$" || OOM=gather
    done
  fi
  case $OOM in
    gather) track="ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherParams=OverMemoryKill" ;;
    cgroup) track="ProctrackType=proctrack/cgroup
TaskPlugin=task/cgroup
JobAcctGatherType=jobacct_gather/cgroup"
      cat >"$DIR/etc/cgroup.conf" <<EOF
CgroupPlugin=cgroup/v1
CgroupMountpoint=/sys/fs/cgroup
ConstrainCores=no
ConstrainRAMSpace=yes
ConstrainSwapSpace=no
EOF
      ;;
    *) die "SLURM_UP_OOM=$OOM?" ;;
  esac
  if [ "$ACCT" = mariadb ]; then
    acct="AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort=$DBPORT
# for slurmdbd this 'password' is the munge socket; without it sacct asks /run/munge/munge.socket.2
AccountingStoragePass=$DIR/run/munge.sock
AccountingStoreFlags=job_comment"
    ( umask 077; cat >"$DIR/etc/slurmdbd.conf" <<EOF
DbdHost=localhost
DbdAddr=127.0.0.1
DbdPort=$DBPORT
CommunicationParameters=NoInAddrAny
AuthType=auth/munge
AuthInfo=socket=$DIR/run/munge.sock
SlurmUser=root
LogFile=$DIR/log/slurmdbd.log
PidFile=$DIR/run/slurmdbd.own-pid
StorageType=accounting_storage/mysql
StorageHost=localhost
StorageUser=slurm
StoragePass=slurm
StorageLoc=slurm_acct_db
EOF
    )
  else
    acct="AccountingStorageType=accounting_storage/none"
  fi
  cat >"$DIR/etc/slurm.conf" <<EOF
# written by slurm-up.sh
ClusterName=ci
SlurmctldHost=localhost(127.0.0.1)
SlurmctldPort=$PORT
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
CredType=cred/munge
# cred_expire is also how long a requeued job waits before it may start again (default 120 s)
AuthInfo=socket=$DIR/run/munge.sock,cred_expire=15
StateSaveLocation=$DIR/state
SlurmdSpoolDir=$DIR/spool/%n
SlurmctldPidFile=$DIR/run/slurmctld.own-pid
SlurmdPidFile=$DIR/run/%n.own-pid
SlurmctldLogFile=$DIR/log/slurmctld.log
SlurmdLogFile=$DIR/log/%n.log
MailProg=/bin/true
MpiDefault=none
SwitchType=switch/none
$track
JobAcctGatherFrequency=task=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=500
SchedulerType=sched/backfill
SchedulerParameters=bf_interval=3,sched_interval=5
# bind to 127.0.0.1 only; talk to each node directly, not through a tree that a dead node would cut
CommunicationParameters=NoInAddrAny,NoCtldInAddrAny
TreeWidth=65533
MessageTimeout=5
# a dead node is noticed in about SlurmdTimeout seconds, and comes back by itself when slurmd answers
SlurmdTimeout=$NTO
ReturnToService=2
KillWait=2
CompleteWait=0
# refuse at submission what no node can ever run, instead of leaving it PENDING for ever
EnforcePartLimits=ALL
JobRequeue=${SLURM_UP_REQUEUE:-1}
MinJobAge=${SLURM_UP_MIN_JOB_AGE:-300}
PreemptType=preempt/partition_prio
PreemptMode=REQUEUE
SlurmdParameters=config_overrides
$acct
GresTypes=gpu
NodeName=$nodes NodeHostname=localhost NodeAddr=127.0.0.1 Port=$ports CPUs=$CPUS RealMemory=$MEM Gres=gpu:1 State=UNKNOWN
PartitionName=main Nodes=$nodes Default=YES MaxTime=INFINITE DefaultTime=5 State=UP PriorityTier=1
PartitionName=high Nodes=$nodes MaxTime=INFINITE DefaultTime=5 State=UP PriorityTier=10
EOF
  echo "Name=gpu File=/dev/null" >"$DIR/etc/gres.conf"
  { echo "127.0.0.1 localhost $(hostname)"; for i in $(seq "$N"); do echo "127.0.0.1 n$i"; done; } >"$DIR/etc/hosts"
  cat >"$DIR/env.sh" <<EOF
export SLURM_CONF=$DIR/etc/slurm.conf
export MUNGE_SOCKET=$DIR/run/munge.sock
EOF
fi
. "$DIR/env.sh"
# an existing configuration has the say over this call's settings
N=$(grep -cE '^127.0.0.1 n[0-9]+$' "$DIR/etc/hosts")
PORT=$(sed -n 's/^SlurmctldPort=//p' "$SLURM_CONF") DBPORT=$((PORT + 2))
ACCT=none; [ ! -s "$DIR/etc/slurmdbd.conf" ] || ACCT=mariadb
# No*InAddrAny makes a daemon bind to what its own host name resolves to: give it one that is loopback
local=(unshare --uts sh -c 'hostname localhost; exec "$@"' sh)

# ---- 4. daemons ----------------------------------------------------------------------------------
free() { ! (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null || die "port $1 is taken; set SLURM_UP_PORT"; }
alive slurmctld || free "$PORT"
alive slurmdbd || [ "$ACCT" != mariadb ] || free "$DBPORT"
launch munged /usr/sbin/munged --foreground --force --num-threads=10 --socket="$DIR/run/munge.sock" \
  --key-file="$DIR/munge/munge.key" --pid-file="$DIR/run/munged.own-pid" \
  --log-file="$DIR/log/munged.log" --seed-file="$DIR/munge/seed"
until_ok 10 munge -n -S "$DIR/run/munge.sock" || die "munged does not answer"

if [ "$ACCT" = mariadb ]; then
  if [ ! -d "$DIR/mysql/mysql" ]; then
    rm -rf "$DIR/mysql"; mkdir "$DIR/mysql"
    mariadb-install-db --no-defaults --user=root --datadir="$DIR/mysql" --skip-test-db \
      --auth-root-authentication-method=normal >"$DIR/log/mariadb-install-db.log" 2>&1 || die "mariadb-install-db"
  fi
  launch mariadbd /usr/sbin/mariadbd --no-defaults --user=root --datadir="$DIR/mysql" --skip-networking \
    --socket="$DIR/run/mysql.sock" --pid-file="$DIR/run/mariadbd.own-pid" --log-error="$DIR/log/mariadbd.log" \
    --innodb-buffer-pool-size=128M --innodb-lock-wait-timeout=900 --innodb-flush-log-at-trx-commit=2
  sql() { mariadb --no-defaults -uroot --socket="$DIR/run/mysql.sock" -e "$1"; }
  until_ok 30 sql 'select 1' || die "MariaDB does not answer"
  sql "create database if not exists slurm_acct_db;
       create user if not exists slurm@localhost identified by 'slurm';
       grant all on slurm_acct_db.* to slurm@localhost;"
  # libmariadb takes the socket of 'localhost' from here; slurmdbd.conf is found beside SLURM_CONF
  launch slurmdbd "${local[@]}" env MYSQL_UNIX_PORT="$DIR/run/mysql.sock" /usr/sbin/slurmdbd -D
  until_ok 30 sacctmgr -n show cluster || die "slurmdbd does not answer"
  # before slurmctld's first start, or it complains until it has registered
  [ -n "$(sacctmgr -nP show cluster ci format=cluster)" ] || sacctmgr -i -Q add cluster ci >/dev/null
  [ -n "$(sacctmgr -nP show account ci format=account)" ] || sacctmgr -i -Q add account ci cluster=ci >/dev/null
  sacctmgr -nP show assoc user=root account=ci format=user | grep -q root \
    || sacctmgr -i -Q add user root account=ci cluster=ci >/dev/null
  say "MariaDB and slurmdbd answer"
fi

launch slurmctld "${local[@]}" /usr/sbin/slurmctld -D -f "$SLURM_CONF"
until_ok 20 scontrol ping || die "slurmctld does not answer"

# a node: its own pid namespace (init is a small shell that reaps), hostname, /proc and /etc/hosts, and
# DIR/etc as its /etc/slurm: Snakemake's slurm-jobstep 0.6 clears SLURM_CONF (every SLURM_* variable but a
# few) before it calls srun, which then looks nowhere else
booted=""
for i in $(seq "$N"); do
  mkdir -p "$DIR/spool/n$i"
  alive "n$i" || booted+=" n$i"
  launch "n$i" unshare --pid --fork --kill-child --mount-proc --uts sh -c \
    'hostname "$1"; mount --bind "$3/hosts" /etc/hosts; mount --bind "$3" /etc/slurm
     /usr/sbin/slurmd -D -N "$1" -f "$2" & while :; do wait; sleep 1; done' \
    slurm-node "n$i" "$SLURM_CONF" "$DIR/etc"
done

# ---- 5. wait until sinfo shows all of them idle -----------------------------------------------------
# (a node that was killed a moment ago still counts as idle until SlurmdTimeout: ask for its new slurmd too)
fresh() { local n t; for n in $booted; do
            t=$(scontrol show node "$n" | sed -n 's/.*SlurmdStartTime=\([^ ]*\).*/\1/p')
            [[ $t != None && ! $t < $ISO0 ]] || return 1; done; }
idle() { fresh && [ "$(sinfo -h -N -o '%N %T' | sort -u | grep -cE ' (idle|mixed|allocated)$')" = "$N" ]; }
until_ok "$WAIT" idle || { sinfo -N -l >&2 || true; die "nodes not idle within ${WAIT}s"; }
say "memory by $(sed -n s,^JobAcctGatherType=jobacct_gather/,,p "$SLURM_CONF"); $(sinfo -h -o '%P %D nodes %T' | tr '\n' ';') use it with: . $DIR/env.sh"
