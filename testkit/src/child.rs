//! Server processes that never outlive the test process.

use std::fs;
use std::io;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Signal, set_parent_process_death_signal};

const START_LIMIT: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_millis(20);

/// A running server. It is killed when this is dropped, or with the process.
pub(crate) struct Server {
    child: Child,
}

impl Server {
    pub(crate) fn start(command: Command) -> Server {
        let program = command.get_program().to_owned();
        let child = spawn(command).unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        Server { child }
    }

    /// Polls until `ready`; false if the process ends or takes too long.
    pub(crate) fn wait(&mut self, ready: impl Fn() -> bool) -> bool {
        let start = Instant::now();
        while !ready() {
            if start.elapsed() > START_LIMIT || self.child.try_wait().ok().flatten().is_some() {
                return false;
            }
            thread::sleep(POLL);
        }
        true
    }

    /// Waits until it, and nobody else, listens on `port`.
    pub(crate) fn wait_for_port(&mut self, port: u16) -> bool {
        let pid = self.child.id();
        self.wait(|| listens(pid, port))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Both fail only if it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server's folder, removed when this is dropped.
pub(crate) struct DataFolder(PathBuf);

impl DataFolder {
    /// A fresh folder. A server that is killed with its process cannot remove
    /// its own, so those of processes that have ended go now.
    pub(crate) fn new() -> DataFolder {
        let all = std::env::temp_dir().join("quire-testkit");
        fs::create_dir_all(&all).unwrap_or_else(|e| panic!("{}: {e}", all.display()));
        for folder in fs::read_dir(&all).into_iter().flatten().flatten() {
            let name = folder.file_name().to_string_lossy().into_owned();
            let pid = name.split('-').next().unwrap_or_default();
            if !Path::new("/proc").join(pid).exists() {
                // Another process may be removing it, too.
                let _ = fs::remove_dir_all(folder.path());
            }
        }
        let folder = all.join(format!("{}-{:08x}", std::process::id(), rand::random::<u32>()));
        fs::create_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        DataFolder(folder)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DataFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

type Order = (Command, Sender<io::Result<Child>>);

/// Starts a process that the kernel kills when this one ends, however it ends.
///
/// That signal is sent when the *thread* that started the process ends, and a
/// test's thread ends with the test; so one thread that never does starts them all.
pub(crate) fn spawn(mut command: Command) -> io::Result<Child> {
    static STARTER: OnceLock<Mutex<Sender<Order>>> = OnceLock::new();
    // SAFETY: between fork and exec only prctl is called, which is async-signal-safe.
    unsafe {
        command.pre_exec(|| set_parent_process_death_signal(Some(Signal::KILL)).map_err(io::Error::from));
    }
    let starter = STARTER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, reply) in inbox {
                // Whoever asked is still waiting, or the process is ending.
                let _ = reply.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (reply, child) = channel();
    starter.lock().expect("the starter's lock").send((command, reply)).expect("the starter never ends");
    child.recv().expect("the starter answers")
}

/// Ports that were free a moment ago, all different.
pub(crate) fn free_ports<const N: usize>() -> [u16; N] {
    let listeners = [(); N].map(|()| TcpListener::bind("127.0.0.1:0").expect("a free port"));
    listeners.map(|listener| listener.local_addr().expect("a bound address").port())
}

/// Whether process `pid` is the one that listens on `port`: somebody else may
/// have taken the port in between, and would answer too.
fn listens(pid: u32, port: u16) -> bool {
    const LISTEN: &str = "0A";
    let table = fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    let local = format!(":{port:04X}");
    let inodes = table.lines().filter_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let ours = fields.get(1)?.ends_with(&local) && *fields.get(3)? == LISTEN;
        ours.then(|| format!("socket:[{}]", fields.get(9).copied().unwrap_or_default()))
    });
    let inodes: Vec<String> = inodes.collect();
    let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    files
        .flatten()
        .filter_map(|file| fs::read_link(file.path()).ok())
        .any(|target| inodes.iter().any(|inode| target.as_os_str() == inode.as_str()))
}
