#!/bin/sh
# In the machine, as root: set-up by the README's own command, and msp-harness where root finds it.
# Wheels in vagrant/wheels/ serve a machine that reaches no package index; set-up checks their hashes as ever.
set -eu
cd /vagrant

if [ -d vagrant/wheels ]; then
	export PIP_NO_INDEX=1 PIP_FIND_LINKS="$PWD/vagrant/wheels"
fi

# Set-up installs packages on Debian and Ubuntu itself, but make; elsewhere it only says which: so this does it.
if command -v apt-get >/dev/null; then
	command -v make >/dev/null || { apt-get -q update && apt-get -y -q install make; }
else
	command=$(python3 -c '
from harness.kernel import packages
row = packages.distribution()
print(packages.install_command(packages.ALL_NEEDS, row) if row else "")')
	# shellcheck disable=SC2086 # a command of plain words
	[ -z "$command" ] || $command make
fi

make install

# Where sudo looks: not everywhere is /usr/local/bin in its secure_path.
for directory in /usr/local/bin /usr/bin; do
	ln -sf /vagrant/.venv/bin/msp-harness "$directory/msp-harness"
	! sudo -n sh -c 'command -v msp-harness' >/dev/null || break
done
echo "provisioned: kernel $(uname -r), $(sudo -n sh -c 'command -v msp-harness')"
