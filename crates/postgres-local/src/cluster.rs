//! Starts and stops one private server.

use std::fs::{File, OpenOptions, TryLockError};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal};

use crate::account::Account;
use crate::error::{Error, IoContext};
use crate::install::tail;
use crate::locate::{Choice, Server, locate, locate_major};
use crate::place::Place;
use crate::postmaster::{self, Postmaster};
use crate::wire::{self, USER};

const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long a fast shutdown may take before it is made an immediate one.
const FAST_WITHIN: Duration = Duration::from_secs(10);
const IMMEDIATE_WITHIN: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(20);
/// How many ports are tried when each turns out to be taken between our look and the server's bind.
const PORT_ATTEMPTS: usize = 5;
const ORPHANS_WITHIN: Duration = Duration::from_millis(300);
/// SQLSTATE duplicate_database.
const DUPLICATE_DATABASE: &str = "42P04";

/// How a server is run.
pub struct Options<'a> {
    /// Whether committed data survive a crash of the machine. Tests need that not, and are faster without.
    pub durable: bool,
    /// Told, in a sentence, before anything that takes long.
    pub progress: &'a dyn Fn(&str),
}

impl Default for Options<'_> {
    /// Durable, and silent.
    fn default() -> Self {
        Self { durable: true, progress: &|_| {} }
    }
}

/// A running private server. Dropping it stops it, waiting until it has ended.
#[derive(Debug)]
pub struct Cluster {
    process: Process,
    port: u16,
    summary: String,
    place: Place,
    /// The wished directory, deleted after the server has stopped, of a temporary cluster.
    temporary: Option<tempfile::TempDir>,
    /// Keeps others from starting or adopting a server here; released when dropped.
    _lock: File,
}

#[derive(Debug)]
enum Process {
    Ours(Child),
    Adopted(Pid),
    Stopped,
}

impl Cluster {
    /// Starts a server whose files live in `dir`, which is created, with a new data directory, if need be. A server
    /// started there before comes back with its data and, if that is free, on its port.
    ///
    /// # Errors
    /// [`Error::AlreadyRunning`] if a server runs on `dir`; [`Error::NotInstalled`], [`Error::Install`] and
    /// [`Error::WrongVersion`] about the binaries; [`Error::Died`] and [`Error::NotReady`] with the server's last
    /// words.
    pub fn start(dir: &Path, options: &Options<'_>) -> Result<Self, Error> {
        std::fs::create_dir_all(dir).doing("create", dir)?;
        let dir = dir.canonicalize().doing("resolve", dir)?;
        let account = Account::for_server()?;
        let mut place = Place::of(&dir, account)?;
        let lock = lock(&dir);
        if let Some(Postmaster { pid, port }) = Postmaster::of(&place.data()).filter(|_| place.is_made()) {
            return Err(Error::AlreadyRunning { dir, pid: pid.as_raw_nonzero().get(), url: url(port, "postgres") });
        }
        let lock = lock?;
        let choice = if place.is_made() {
            let wanted = place.major()?;
            locate_major(wanted).map_err(|found| Error::WrongVersion {
                data: place.data(),
                dir: dir.clone(),
                wanted,
                found: found.join(", "),
            })?
        } else {
            let choice = locate(options.progress)?;
            (options.progress)("making a new PostgreSQL data directory");
            let fresh = place.make(account)?;
            initdb(&choice.server, &fresh, account)?;
            place.keep(&fresh)?;
            choice
        };
        let (child, port) = serve(&choice.server, &place, account, options.durable)?;
        let summary = summary(&choice, &place, port, account.is_some());
        let mut cluster = Self { process: Process::Ours(child), port, summary, place, temporary: None, _lock: lock };
        cluster.place.remember_port(port)?;
        Ok(cluster)
    }

    /// Starts a server for tests in a temporary directory that is deleted with the server. Not durable.
    ///
    /// # Errors
    /// As [`Cluster::start`].
    pub fn temporary(progress: &dyn Fn(&str)) -> Result<Self, Error> {
        let parent = std::env::temp_dir();
        let mut builder = tempfile::Builder::new();
        builder.prefix("modelyard-postgres-");
        // The server's account must be able to enter; the data directory in it is private all the same.
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o755));
        let dir = builder.tempdir_in(&parent).doing("create a directory in", &parent)?;
        let mut cluster = Self::start(dir.path(), &Options { durable: false, progress })?;
        cluster.temporary = Some(dir);
        Ok(cluster)
    }

    /// Takes over the server that a killed process of ours left running on `dir`.
    ///
    /// # Errors
    /// [`Error::NotRunning`] if there is none; [`Error::Busy`] if it belongs to a process that is alive.
    pub fn adopt(dir: &Path) -> Result<Self, Error> {
        let dir = dir.canonicalize().doing("resolve", dir)?;
        let place = Place::of(&dir, Account::for_server()?)?;
        let lock = lock(&dir)?;
        let Some(Postmaster { pid, .. }) = Postmaster::of(&place.data()) else {
            return Err(Error::NotRunning { dir });
        };
        let port = wait_ready(None, &place, pid)?;
        let summary =
            format!("PostgreSQL left running by an earlier process (pid {}), taken over", pid.as_raw_nonzero());
        Ok(Self { process: Process::Adopted(pid), port, summary, place, temporary: None, _lock: lock })
    }

    /// One sentence for people: which PostgreSQL runs, where it comes from and where its data are.
    #[must_use]
    pub fn summary(&self) -> &str {
        &self.summary
    }

    /// The port on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The process id of the server; `None` once it has been stopped.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        let pid = match &self.process {
            Process::Ours(child) => child.id(),
            Process::Adopted(pid) => pid.as_raw_nonzero().get().unsigned_abs(),
            Process::Stopped => return None,
        };
        Some(pid)
    }

    /// The file that the server writes its log to.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.place.log()
    }

    /// The connection URL of one database: `postgres://modelyard@127.0.0.1:PORT/database`.
    #[must_use]
    pub fn url(&self, database: &str) -> String {
        url(self.port, database)
    }

    /// Creates a database; `false` if it existed already.
    ///
    /// # Errors
    /// [`Error::Refused`] with the server's words, [`Error::Io`] if it cannot be reached.
    pub fn create_database(&self, name: &str) -> Result<bool, Error> {
        let quoted = name.replace('"', "\"\"");
        match wire::run(self.port, "postgres", &format!("CREATE DATABASE \"{quoted}\"")) {
            Ok(()) => Ok(true),
            Err(Error::Refused { code, .. }) if code == DUPLICATE_DATABASE => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Stops the server and waits for its end. Open transactions are rolled back (a "fast" shutdown); after 10 s it is
    /// made an "immediate" one. The data stay, unless the cluster is a temporary one.
    ///
    /// # Errors
    /// [`Error::NotStopped`] if it survives even SIGKILL.
    pub fn stop(mut self) -> Result<(), Error> {
        self.end()
    }

    /// Stops the server and deletes its data, wherever they are.
    ///
    /// # Errors
    /// As [`Cluster::stop`], and [`Error::Io`] if something cannot be deleted.
    pub fn delete(mut self) -> Result<(), Error> {
        self.end()?;
        self.place.delete()
    }

    fn end(&mut self) -> Result<(), Error> {
        let mut process = std::mem::replace(&mut self.process, Process::Stopped);
        let pid = match &process {
            Process::Ours(child) => Pid::from_child(child),
            Process::Adopted(pid) => *pid,
            Process::Stopped => return Ok(()),
        };
        // A child that was reaped already has given its number back: it must not be signalled.
        let steps = [(Signal::INT, FAST_WITHIN), (Signal::QUIT, IMMEDIATE_WITHIN), (Signal::KILL, IMMEDIATE_WITHIN)];
        for (signal, within) in steps {
            if process.has_ended() {
                return Ok(());
            }
            postmaster::signal(pid, signal).doing("signal PostgreSQL of", &self.place.data())?;
            let deadline = Instant::now() + within;
            while Instant::now() < deadline {
                if process.has_ended() {
                    return Ok(());
                }
                std::thread::sleep(POLL);
            }
        }
        Err(Error::NotStopped { pid: pid.as_raw_nonzero().get() })
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // Best effort: there is nobody to tell. `stop` is for those who want to know.
        let _ = self.end();
        if self.temporary.is_some() {
            let _ = self.place.delete();
        }
    }
}

impl Process {
    fn has_ended(&mut self) -> bool {
        match self {
            // An error means that there is no such child any more.
            Self::Ours(child) => !matches!(child.try_wait(), Ok(None)),
            Self::Adopted(pid) => !postmaster::is_alive(*pid),
            Self::Stopped => true,
        }
    }
}

fn url(port: u16, database: &str) -> String {
    format!("postgres://{USER}@127.0.0.1:{port}/{database}")
}

fn summary(choice: &Choice, place: &Place, port: u16, as_other: bool) -> String {
    let whose = if as_other { ", as an unprivileged user" } else { "" };
    let whereabouts = match place.elsewhere() {
        Some(home) => format!("; its data are in {}, since that user cannot enter the state directory", home.display()),
        None => String::new(),
    };
    format!("{}, on 127.0.0.1:{port}{whose}{whereabouts}", choice.sentence)
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).doing("open", &path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::Busy { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(error)) => Err(error).doing("lock", &path),
    }
}

fn initdb(server: &Server, data: &Path, account: Option<Account>) -> Result<(), Error> {
    let program = server.program("initdb");
    let mut command = Command::new(&program);
    command
        .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--no-sync"])
        .arg(format!("--username={USER}"))
        .arg("-D")
        .arg(data)
        .current_dir("/")
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        // A terminal's Ctrl-C must not end it before its caller has decided what to do.
        .process_group(0);
    if let Some(account) = account {
        account.apply(&mut command);
    }
    let output = command.output().doing("run", &program)?;
    if output.status.success() {
        return Ok(());
    }
    let said = [output.stdout, output.stderr].concat();
    Err(Error::Initdb { output: tail(&String::from_utf8_lossy(&said), 15) })
}

/// Starts `postgres` on the port of the last run or a free one, and waits until it accepts connections.
fn serve(server: &Server, place: &Place, account: Option<Account>, durable: bool) -> Result<(Child, u16), Error> {
    let mut wished = place.port();
    let mut attempts = PORT_ATTEMPTS;
    loop {
        attempts -= 1;
        let port = free_port(wished.take())?;
        let mut child = spawn(server, place, account, durable, port)?;
        let pid = Pid::from_child(&child);
        match wait_ready(Some(&mut child), place, pid) {
            Ok(port) => return Ok((child, port)),
            Err(Error::Died { tail, .. }) if attempts > 0 && tail.contains("could not bind") => {}
            // After a kill -9 of the server its children need a moment to notice that they are orphans.
            Err(Error::Died { tail, .. }) if attempts > 0 && tail.contains("is still in use") => {
                wished = Some(port);
                std::thread::sleep(ORPHANS_WITHIN);
            }
            Err(error) => {
                // Nobody else would: the child is not a `Cluster` yet.
                let _ = child.kill();
                let _ = child.wait();
                return Err(error);
            }
        }
    }
}

/// The wished port if nobody listens on it, else one that the kernel picks. Released again, so someone else may take
/// it before the server does; the caller tries again then.
fn free_port(wished: Option<u16>) -> Result<u16, Error> {
    let bind = |port: u16| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).and_then(|listener| listener.local_addr());
    let found = wished.and_then(|port| bind(port).ok()).map_or_else(|| bind(0), Ok);
    match found {
        Ok(address) => Ok(address.port()),
        Err(source) => Err(Error::Io { what: "no free port on 127.0.0.1".to_owned(), source }),
    }
}

fn spawn(server: &Server, place: &Place, account: Option<Account>, durable: bool, port: u16) -> Result<Child, Error> {
    let path = place.log();
    // Each run starts its log anew: what is read back as "last words" must be this run's.
    let log = File::create(&path).doing("create", &path)?;
    let errors = log.try_clone().doing("open", &path)?;
    let program = server.program("postgres");
    let mut command = Command::new(&program);
    command.arg("-D").arg(place.data());
    let port = format!("port={port}");
    let mut settings = vec![
        "listen_addresses=127.0.0.1",
        port.as_str(),
        // The loopback port is enough, and a socket file's path may be too long or left behind.
        "unix_socket_directories=",
        "logging_collector=off",
        "shared_buffers=64MB",
        "max_connections=200",
    ];
    if !durable {
        settings.extend(["fsync=off", "synchronous_commit=off", "full_page_writes=off"]);
    }
    for setting in settings {
        command.args(["-c", setting]);
    }
    command.current_dir("/").env("LC_ALL", "C").stdin(Stdio::null()).stdout(log).stderr(errors);
    // Its own process group: a terminal's Ctrl-C reaches us, and we stop the server last, after its clients.
    command.process_group(0);
    if let Some(account) = account {
        account.apply(&mut command);
    }
    command.spawn().doing("run", &program)
}

/// Waits until the server of `place` accepts connections; returns its port as it wrote it into `postmaster.pid`,
/// so that a stranger's server on the same port is never taken for ours.
fn wait_ready(mut child: Option<&mut Child>, place: &Place, pid: Pid) -> Result<u16, Error> {
    let deadline = Instant::now() + READY_WITHIN;
    let last_words = || tail(&std::fs::read_to_string(place.log()).unwrap_or_default(), 15);
    loop {
        let ended = match &mut child {
            Some(child) => child.try_wait().doing("wait for", &place.data())?.map(|status| status.to_string()),
            None => (!postmaster::is_alive(pid)).then(|| "its process is gone".to_owned()),
        };
        if let Some(status) = ended {
            return Err(Error::Died { status, log: place.log(), tail: last_words() });
        }
        let up = Postmaster::of(&place.data()).filter(|found| found.pid == pid && found.port != 0);
        if let Some(found) = up
            && wire::run(found.port, "postgres", "").is_ok()
        {
            return Ok(found.port);
        }
        if Instant::now() > deadline {
            return Err(Error::NotReady { seconds: READY_WITHIN.as_secs(), log: place.log(), tail: last_words() });
        }
        std::thread::sleep(POLL);
    }
}
