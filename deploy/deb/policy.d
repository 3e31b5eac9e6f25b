Files of this folder whose names end in .toml are read after ../policy.toml, by name.

The roles in /usr/share/sockbroker/policy.d are such files. Most need a capability too, which the drop-in of the
same name in /usr/share/sockbroker/roles gives the service: sockbrokerd(8) shows how.
