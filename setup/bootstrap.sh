#!/bin/sh
# sh setup/bootstrap.sh runtime|dev|vagrant: sees to it that the distribution's own python3 works, then leaves the rest to it.
# /usr/bin/python3 and no other: BCC's module is built for that one, and the first python3 on PATH may be pyenv's.
set -u
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd) || exit 3
python=${MSP_SYSTEM_PYTHON:-/usr/bin/python3}
unset PYTHONPATH PYTHONHOME

refuse() {
	echo "set-up: cannot $1: $2; $3" >&2
	exit 3
}

# A machine may have python3-minimal only, or a python3 whose installation was interrupted: no standard library.
works() {
	[ -x "$python" ] && "$python" -I -S -c 'import hashlib, json, subprocess' 2>/dev/null </dev/null
}

install_python() {
	export DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1
	apt-get -y -q --no-install-recommends --no-remove -o DPkg::Lock::Timeout=300 "$@"
}

if ! works; then
	happened='there is none that works'
	hint="install the distribution's package python3 (3.11 or newer) as root"
	[ "$python" = /usr/bin/python3 ] && command -v apt-get >/dev/null || refuse "use $python" "$happened" "$hint"
	[ "$(id -u)" = 0 ] || refuse "use $python" "$happened, and this is not root" "$hint"
	echo 'set-up: installing python3 with apt-get' >&2
	log=$(
		exec 2>&1 </dev/null
		export LC_ALL=C.UTF-8
		apt-get -q update
		install_python install python3 && works && exit
		# An earlier run may have been killed in the midst of it.
		dpkg --force-confdef --force-confold --configure -a
		install_python --fix-broken install
		install_python install python3
	) && works || {
		echo "$log" | tail -n 15 >&2
		refuse 'install python3 with apt-get' 'it failed as shown above' 'repair that, then run this again'
	}
fi

cd "$root" || exit 3
exec "$python" -s -m setup "$@" </dev/null
