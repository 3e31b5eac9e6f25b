//! An OpenSSH server on loopback, with keys and configuration of its own, and the configuration of a client for it.

use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nix::unistd::{User, geteuid};

use crate::folder::Folder;
use crate::skip;

const PROGRAM: &str = "/usr/sbin/sshd";
/// The folder that a server of root requires.
const PRIVILEGE_SEPARATION: &str = "/run/sshd";

/// Whether ssh, sshd and ssh-keygen are installed. Otherwise counts the test as skipped.
pub fn installed_or_skip(test: &str) -> bool {
    if !Path::new(PROGRAM).is_file() {
        skip::skip("sshd is not installed", test);
        return false;
    }
    skip::program_or_skip("ssh", test) && skip::program_or_skip("ssh-keygen", test)
}

/// Whether the login shell of this user runs commands: sshd starts programs by it. Otherwise counts the test as
/// skipped.
pub fn shell_or_skip(test: &str) -> bool {
    let user = User::from_uid(geteuid()).unwrap();
    let has_shell = user.is_some_and(|user| user.shell.ends_with("bash"));
    if !has_shell {
        skip::skip("bash is not the login shell of this user", test);
    }
    has_shell
}

/// The server. The listener accepts connections itself, so that the kernel chooses the port, and starts `sshd -i` for
/// each.
#[derive(Debug)]
pub struct Sshd {
    folder: Folder,
    port: u16,
    stopped: Arc<AtomicBool>,
    listener: Option<JoinHandle<()>>,
}

impl Sshd {
    /// Starts a server that accepts one key for every user that it can serve. `further` are lines of its configuration.
    /// Programs find their files in the folder `home`, and programs in the folder of `program`.
    pub fn start(program: &str, further: &str) -> Self {
        let folder = Folder::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o711)).unwrap();
        if geteuid().is_root()
            && let Err(error) = fs::create_dir(PRIVILEGE_SEPARATION)
        {
            assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{PRIVILEGE_SEPARATION}");
        }
        for key in ["host_key", "user_key", "other_key"] {
            new_key(&folder.join(key));
        }
        let public = fs::read_to_string(folder.join("user_key.pub")).unwrap();
        folder.write("authorized_keys", &public);
        let (home, place) = (folder.join("home"), folder.path().display());
        fs::create_dir(&home).unwrap();
        fs::create_dir(folder.join("runtime")).unwrap();
        let programs = Path::new(program).parent().unwrap().display();
        let home = home.display();
        // Without PAM, a server of another user than root takes accounts for locked whose shadow entry it cannot read.
        let pam = if geteuid().is_root() { "no" } else { "yes" };
        folder.write(
            "sshd_config",
            &format!(
                "HostKey {place}/host_key\nAuthorizedKeysFile {place}/authorized_keys\nStrictModes no\nUsePAM {pam}\n\
                 PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\nPidFile none\n\
                 LogLevel VERBOSE\nPrintMotd no\nPrintLastLog no\nSetEnv HOME={home} PATH={programs}:/usr/bin:/bin\n{further}\n"
            ),
        );
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = folder.join("config/sockbroker/127.0.0.1");
        fs::create_dir_all(&client).unwrap();
        fs::write(
            client.join("ssh_config"),
            format!(
                "IdentityFile {place}/user_key\nIdentitiesOnly yes\nIdentityAgent none\n\
                 UserKnownHostsFile {place}/known_hosts\nGlobalKnownHostsFile /dev/null\n\
                 StrictHostKeyChecking yes\n"
            ),
        )
        .unwrap();
        let stopped = Arc::new(AtomicBool::new(false));
        let (stop, place) = (Arc::clone(&stopped), folder.path().to_owned());
        let listener = thread::spawn(move || serve(&listener, &place, &stop));
        let server = Self { folder, port, stopped, listener: Some(listener) };
        server.know("host_key");
        server
    }

    /// Makes the client expect this key of the server.
    pub fn know(&self, key: &str) {
        let public = fs::read_to_string(self.folder.join(&format!("{key}.pub"))).unwrap();
        self.folder.write("known_hosts", &format!("[127.0.0.1]:{} {public}", self.port));
    }

    pub fn folder(&self) -> &Folder {
        &self.folder
    }

    /// Returns the URL of a socket behind the server, for this user or for another.
    pub fn url(&self, user: Option<&str>, socket: &Path) -> String {
        let user = user.map(|user| format!("{user}@")).unwrap_or_default();
        format!("ssh://{user}127.0.0.1:{}{}", self.port, socket.display())
    }

    /// Returns the variables with which a client uses its configuration and its folder for sockets.
    pub fn variables(&self) -> [(&'static str, PathBuf); 2] {
        let runtime = self.folder.join("runtime");
        [("XDG_CONFIG_HOME", self.folder.join("config")), ("XDG_RUNTIME_DIR", runtime)]
    }

    /// Returns the processes of ssh that clients with these variables have started.
    pub fn clients(&self) -> Vec<u32> {
        running("ssh", &self.folder.join("config").display().to_string())
    }

    /// Returns the processes of a program whose arguments contain the port of the server.
    pub fn processes(&self, program: &str) -> Vec<u32> {
        running(program, &format!(":{}", self.port))
    }

    /// Returns the names in the folder of the sockets of clients.
    pub fn sockets(&self) -> Vec<String> {
        let names = fs::read_dir(self.folder.join("runtime")).unwrap();
        names.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }

    /// Returns the log of the server.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.join("sshd.log")).unwrap_or_default()
    }
}

/// Returns the processes of a program whose arguments contain a text.
fn running(program: &str, argument: &str) -> Vec<u32> {
    let is_meant = |number: &u32| {
        let text = fs::read(format!("/proc/{number}/cmdline")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        text.starts_with(&format!("{program}\0")) && text.contains(argument)
    };
    let numbers = fs::read_dir("/proc").unwrap();
    numbers
        .filter_map(|entry| entry.unwrap().file_name().to_str()?.parse().ok())
        .filter(is_meant)
        .collect()
}

fn new_key(path: &Path) {
    let mut command = Command::new("ssh-keygen");
    let status = command.args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path).status().unwrap();
    assert!(status.success());
}

/// Starts a server process for each connection, and waits for all of them at the end.
fn serve(listener: &TcpListener, folder: &Path, stop: &AtomicBool) {
    let mut children = Vec::new();
    loop {
        let (stream, _) = listener.accept().unwrap();
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let log =
            OpenOptions::new().create(true).append(true).open(folder.join("sshd.log")).unwrap();
        let input = OwnedFd::from(stream);
        let output = input.try_clone().unwrap();
        let mut command = Command::new(PROGRAM);
        command.args(["-i", "-e", "-f"]).arg(folder.join("sshd_config"));
        children.push(command.stdin(input).stdout(output).stderr(log).spawn().unwrap());
    }
    for mut child in children {
        // A client that a failed test left behind could keep it.
        drop(child.kill());
        drop(child.wait());
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::Relaxed);
        // Wakes the thread.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        if let Some(listener) = self.listener.take() {
            drop(listener.join());
        }
    }
}
