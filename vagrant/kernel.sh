#!/bin/sh
# In the machine, as root: install another kernel, which the next start of the machine brings.
# $1 is a package, PACKAGE/SUITE for apt, or the file of a package, relative to the tree.
set -eu
package=$1
cd /vagrant

if command -v apt-get >/dev/null; then
	export DEBIAN_FRONTEND=noninteractive
	case $package in
	*.deb) package=./$package ;; # apt takes a path for a file only if it begins so
	*/*)
		# That suite, from where the machine's own packages come.
		python3 - "${package#*/}" >/etc/apt/sources.list.d/msp-kernel.list <<-'PYTHON'
			import sys
			from harness.vm import apt
			print("\n".join(source.line() for source in apt.sources_of(sys.argv[1])))
		PYTHON
		apt-get -q update
		;;
	*) apt-get -q update ;;
	esac
	apt-get -y -q --no-install-recommends install "$package"
elif command -v dnf >/dev/null; then
	dnf -y install "$package"
elif command -v tdnf >/dev/null; then
	tdnf -y install "$package"
else
	zypper --non-interactive install "$package"
fi
