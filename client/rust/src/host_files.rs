//! What a user has configured for a host: files in `$XDG_CONFIG_HOME/sockbroker/HOST`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The configuration of ssh for a host.
pub(crate) const SSH_CONFIG: &str = "ssh_config";

/// The path of a file for a host, if the file exists. `~/.config` is the default of `$XDG_CONFIG_HOME`.
pub(crate) fn find(host: &str, name: &str) -> Option<PathBuf> {
    find_in(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME"), host, name)
}

/// The hosts for which the user has configured ssh, sorted.
pub(crate) fn hosts() -> Vec<String> {
    hosts_in(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME"))
}

fn hosts_in(configuration: Option<OsString>, home: Option<OsString>) -> Vec<String> {
    let entries = folder(configuration, home).and_then(|folder| folder.read_dir().ok());
    let entries = entries.into_iter().flatten().filter_map(Result::ok);
    let configured = entries.filter(|entry| entry.path().join(SSH_CONFIG).is_file());
    let mut hosts: Vec<_> =
        configured.filter_map(|entry| entry.file_name().into_string().ok()).collect();
    hosts.sort_unstable();
    hosts
}

fn find_in(
    configuration: Option<OsString>,
    home: Option<OsString>,
    host: &str,
    name: &str,
) -> Option<PathBuf> {
    let folder = folder(configuration, home)?.join(Path::new(host));
    Some(folder.join(name)).filter(|file| file.is_file())
}

/// The folder with a folder for each host.
fn folder(configuration: Option<OsString>, home: Option<OsString>) -> Option<PathBuf> {
    let absolute = |folder: &PathBuf| folder.is_absolute();
    let configuration = configuration.map(PathBuf::from).filter(absolute);
    let home = || home.map(PathBuf::from).filter(absolute).map(|home| home.join(".config"));
    Some(configuration.or_else(home)?.join("sockbroker"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_the_configuration_precedes_the_home() {
        let folder = sockbroker_test_support::Folder::new();
        let (home, other) = (folder.join("home"), folder.join("other"));
        let of_home = home.join(".config/sockbroker/lab7");
        std::fs::create_dir_all(&of_home).unwrap();
        std::fs::create_dir_all(other.join("sockbroker/lab7")).unwrap();
        std::fs::write(of_home.join("ssh_config"), "").unwrap();
        let find = |configuration: Option<&Path>| {
            find_in(configuration.map(Into::into), Some(home.clone().into()), "lab7", "ssh_config")
        };
        assert_eq!(find(None), Some(of_home.join("ssh_config")));
        assert_eq!(find(Some(Path::new("relative"))), Some(of_home.join("ssh_config")));
        assert_eq!(find(Some(&other)), None);
        assert_eq!(find_in(None, None, "lab7", "ssh_config"), None);
    }

    #[test]
    fn hosts_are_folders_with_a_configuration_of_ssh() {
        let folder = sockbroker_test_support::Folder::new();
        let other = folder.join("other");
        for host in ["lab8", "lab7", "empty"] {
            std::fs::create_dir_all(other.join("sockbroker").join(host)).unwrap();
        }
        for host in ["lab8", "lab7"] {
            let file = other.join("sockbroker").join(host).join("ssh_config");
            std::fs::write(file, "").unwrap();
        }
        std::fs::write(other.join("sockbroker/file"), "").unwrap();
        assert_eq!(hosts_in(Some(other.into()), None), ["lab7", "lab8"]);
        assert_eq!(hosts_in(Some(folder.join("nowhere").into()), None), [""; 0]);
        assert_eq!(hosts_in(None, None), [""; 0]);
    }
}
