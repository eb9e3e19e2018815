# Package orion-virt: what happens around its files. Functions for deb.py and rpm.py.
before_install() { :; }
# Never ends a program of a guest: they go on over oriond's restart; where they could not, it is not restarted, and a line says so.
after_install() { orion-virt install-server -q; }
# Stops the removal, with a reason, while programs of guests run.
before_remove() { orion-virt install-server -q --uninstall; }
after_remove() { [ ! -d /run/systemd/system ] || systemctl daemon-reload; }
after_purge() { rm -rf /etc/orion/server.conf /etc/orion/server.conf.new /var/lib/orion /var/log/orion /var/cache/orion; rmdir /etc/orion 2>/dev/null || :; }
