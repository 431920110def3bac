#!/bin/sh
# sh setup/bootstrap.sh runtime|dev: sees to it that the distribution's own python3 is there, then leaves the rest to it.
# /usr/bin/python3 and no other: BCC's module is built for that one, and the first python3 on PATH may be pyenv's.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 3
python=${MSP_SYSTEM_PYTHON:-/usr/bin/python3}
export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 LC_ALL=C.UTF-8

refuse() {
	echo "set-up: cannot $1: $2; $3" >&2
	exit 3
}

if [ ! -x "$python" ]; then
	hint='install the distribution'"'"'s package python3 (3.11 or newer), as root'
	[ "$(id -u)" = 0 ] || refuse "find $python" 'there is none, and this is not root' "$hint"
	[ "$python" = /usr/bin/python3 ] && command -v apt-get >/dev/null || refuse "find $python" 'there is none' "$hint"
	echo 'set-up: installing python3 with apt-get' >&2
	log=$(apt-get -q update </dev/null 2>&1 &&
		apt-get -y -q --no-install-recommends -o DPkg::Lock::Timeout=300 install python3 </dev/null 2>&1) || {
		echo "$log" | tail -n 15 >&2
		refuse 'install python3 with apt-get' 'it failed as shown above' 'repair that, then run this again'
	}
fi

cd "$root" || exit 3
unset PYTHONPATH PYTHONHOME
exec "$python" -s -m setup "$@" </dev/null
