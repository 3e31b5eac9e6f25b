//! What a user has configured for a host: files in `$XDG_CONFIG_HOME/sockbroker/HOST`.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// The path of a file for a host, if the file exists. `~/.config` is the default of `$XDG_CONFIG_HOME`.
pub(crate) fn find(host: &str, name: &str) -> Option<PathBuf> {
    find_in(std::env::var_os("XDG_CONFIG_HOME"), std::env::var_os("HOME"), host, name)
}

fn find_in(
    configuration: Option<OsString>,
    home: Option<OsString>,
    host: &str,
    name: &str,
) -> Option<PathBuf> {
    let absolute = |folder: &PathBuf| folder.is_absolute();
    let configuration = configuration.map(PathBuf::from).filter(absolute);
    let home = || home.map(PathBuf::from).filter(absolute).map(|home| home.join(".config"));
    let folder = configuration.or_else(home)?.join("sockbroker").join(Path::new(host));
    Some(folder.join(name)).filter(|file| file.is_file())
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
}
