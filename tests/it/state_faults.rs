//! What happens to the disk and the clock of a daemon that keeps its state in a file: never a loss,
//! an error that says what is wrong and what to do, and all is well once the fault is gone.

use std::{
    collections::BTreeSet,
    fs,
    io::Read as _,
    os::unix::fs::{FileExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::future::join_all;
use serde_json::json;
use tempfile::TempDir;
use time::OffsetDateTime;
use tokio::time::{Instant, sleep};

use crate::{
    canary,
    clouds::shared,
    place::{Place, clouds, place},
    rig::{self, PATIENCE},
};

const DAEMON: &str = env!("CARGO_BIN_EXE_eventferry");
/// Other processes tell nobody when something has changed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A hub and a Storage Queue, a queue to which a daemon carries each event once, and where the
/// daemon has its state.
struct Site {
    hub: Place,
    queue: Place,
    far: Place,
    dir: TempDir,
    /// How many events of each source there have been.
    fed: usize,
}

impl Site {
    async fn new() -> Self {
        let (hub, queue, far) =
            (place("event_hubs").await, place("storage_queue").await, place("sqs").await);
        let site = Self { hub, queue, far, dir: tempfile::tempdir().unwrap(), fed: 0 };
        let clouds = clouds().await;
        let config = json!({
            "state": { "embedded": { "path": site.state() } },
            "aws": clouds.aws,
            "azure": clouds.azure,
            "admin": "off",
            "sources": { "hub": site.hub.source, "queue": site.queue.source },
            "sinks": { "far": site.far.sink },
            "routes": [{
                "name": "over", "from": ["hub", "queue"], "to": { "all": ["far"] },
                "dedup": { "ttl": "1h" },
            }],
        });
        fs::write(site.file(), config.to_string()).unwrap();
        site
    }

    fn file(&self) -> PathBuf {
        self.dir.path().join("faults.yaml")
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn database(&self) -> PathBuf {
        self.state().join("state.redb")
    }

    /// Runs it by a command to which the daemon's own is added.
    fn run_by(&self, command: &mut Command) -> Daemon {
        Daemon::start(command.args([DAEMON, "run", "--config"]).arg(self.file()))
    }

    fn run(&self) -> Daemon {
        Daemon::start(Command::new(DAEMON).args(["run", "--config"]).arg(self.file()))
    }

    /// Puts as many into each source.
    async fn feed(&mut self, count: usize) {
        self.fed += count;
        self.feed_again(count).await;
    }

    /// Puts the last ones of each source in once more.
    async fn feed_again(&self, count: usize) {
        let numbers = self.fed - count..self.fed;
        let of = |source: &str| {
            numbers.clone().map(|n| rig::event(&format!("{source}-{n}"), "{}")).collect()
        };
        self.hub.put(of("hub")).await;
        self.queue.put(of("queue")).await;
    }

    /// The names of the last events of each source.
    fn last(&self, count: usize) -> BTreeSet<String> {
        let of = |n| ["hub", "queue"].map(|source| format!("{source}-{n}"));
        (self.fed - count..self.fed).flat_map(of).collect()
    }

    /// Reads what has come. The last ones of each source, as many as are told, are among it; answers
    /// how many others there are.
    async fn others_beside_last(&self, count: usize, daemon: &Daemon) -> usize {
        let last = self.last(count);
        let missing = |events: &[eventferry::event::Event]| {
            let seen: BTreeSet<_> = events.iter().map(|event| event.id.to_string()).collect();
            last.difference(&seen).cloned().collect::<Vec<_>>()
        };
        let all = |events: &[eventferry::event::Event]| missing(events).is_empty();
        let events = self.far.read(all, Instant::now() + PATIENCE * 3).await;
        assert!(missing(&events).is_empty(), "lost: {:?}; {}", missing(&events), daemon.log());
        events.len() - last.len()
    }
}

struct Daemon {
    child: Child,
    /// By a pipe, which no limit of a disk is for.
    log: Arc<Mutex<String>>,
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        canary::look_for_any_in(&self.log());
    }
}

impl Daemon {
    fn start(command: &mut Command) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = child.spawn().unwrap();
        let mut words = child.stderr.take().unwrap();
        let log: Arc<Mutex<String>> = Arc::default();
        let said = log.clone();
        std::thread::spawn(move || {
            let mut some = [0; 4096];
            while let Ok(count @ 1..) = words.read(&mut some) {
                said.lock().unwrap().push_str(&String::from_utf8_lossy(&some[..count]));
            }
        });
        Self { child, log }
    }

    fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    async fn says(&self, words: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.log().contains(words) {
            assert!(Instant::now() < until, "it does not say {words:?}: {}", self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    async fn ended(&mut self) -> ExitStatus {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it does not end: {}", self.log());
            sleep(LOOK_EVERY).await;
        }
    }

    async fn stop(mut self) {
        run("kill", &["-TERM", &self.child.id().to_string()]);
        assert!(self.ended().await.success(), "{}", self.log());
        assert!(!self.log().contains("panicked"), "{}", self.log());
    }

    /// It has not started, because of its state.
    async fn refused(mut self, why: &str) {
        let status = self.ended().await;
        // What it said last is on its way.
        self.says("open state store failed: ").await;
        let log = self.log();
        assert!(status.code() == Some(1) && log.contains(why), "{status}: {log}");
    }
}

fn run(program: &str, args: &[&str]) {
    let status = Command::new(program).args(args).status().unwrap();
    assert!(status.success(), "{program} {args:?}: {status}");
}

fn is_root() -> bool {
    let me = Command::new("id").arg("-u").output().unwrap();
    me.stdout == b"0\n"
}

/// A disk that can be filled, and emptied again.
enum Disk {
    /// A file system of its own.
    Small(PathBuf),
    /// The system refuses to let files of the process grow beyond a page.
    Limit,
}

impl Disk {
    /// Those that can be had on this machine: for a file system, one must be its administrator.
    fn all() -> Vec<Option<&'static str>> {
        let probe = tempfile::tempdir().unwrap();
        let mount = |args: &[&str]| {
            Command::new("mount")
                .args(args)
                .arg(probe.path())
                .output()
                .is_ok_and(|it| it.status.success())
        };
        let may_mount = is_root() && mount(&["-t", "tmpfs", "-o", "size=1m", "eventferry"]);
        if may_mount {
            run("umount", &[probe.path().to_str().unwrap()]);
        }
        println!(
            "a limit of files{}",
            if may_mount { ", and a file system of 4 MB" } else { " alone" }
        );
        [Some(None), may_mount.then_some(Some("4m"))].into_iter().flatten().collect()
    }

    fn new(size: Option<&str>, at: &Path) -> Self {
        let Some(size) = size else { return Self::Limit };
        fs::create_dir(at).unwrap();
        let size = format!("size={size}");
        run("mount", &["-t", "tmpfs", "-o", &size, "eventferry", at.to_str().unwrap()]);
        Self::Small(at.to_owned())
    }

    fn fill(&self, daemon: &Daemon) {
        match self {
            Self::Small(at) => {
                let full = fs::write(at.join("ballast"), vec![1; 8 << 20]).unwrap_err();
                assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
            }
            Self::Limit => Self::limit(daemon, "4096:"),
        }
    }

    fn empty(&self, daemon: &Daemon) {
        match self {
            Self::Small(at) => fs::remove_file(at.join("ballast")).unwrap(),
            Self::Limit => Self::limit(daemon, "unlimited:"),
        }
    }

    fn limit(daemon: &Daemon, soft: &str) {
        let (pid, limit) = (daemon.child.id().to_string(), format!("--fsize={soft}"));
        run("prlimit", &["--pid", &pid, &limit]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        if let Self::Small(at) = self {
            // Also where its daemon still has a file open.
            let _ = Command::new("umount").arg("-l").arg(at).status();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_disk_is_full_nothing_is_lost_and_then_all_is_well() {
    let _shared = shared().await;
    let of = Disk::all().into_iter().map(async |size| {
        let mut site = Site::new().await;
        let disk = Disk::new(size, &site.state());
        // Without this the system ends a process that meets its limit.
        let ignoring = ["-c", r#"trap "" XFSZ; exec "$0" "$@""#];
        let daemon = site.run_by(Command::new("sh").args(ignoring));
        site.feed(20).await;
        assert_eq!(site.others_beside_last(20, &daemon).await, 0);
        disk.fill(&daemon);
        let until = Instant::now() + PATIENCE;
        while !daemon.log().contains("the disk is full; make room, nothing is lost meanwhile") {
            assert!(Instant::now() < until, "it does not say so: {}", daemon.log());
            site.feed(10).await;
        }
        daemon.says("state.redb: the disk is full").await;
        disk.empty(&daemon);
        daemon.says("the store of deduplication keys works again").await;
        site.feed(10).await;
        let others = site.others_beside_last(site.fed - 20, &daemon).await;
        assert_eq!(others, 0, "{size:?}: it was not ended, and yet some came twice");
        daemon.stop().await;
        // What was on its way while the disk was full is settled now.
        let daemon = site.run();
        site.feed(10).await;
        assert_eq!(site.others_beside_last(10, &daemon).await, 0, "{size:?}: {}", daemon.log());
        daemon.stop().await;
    });
    join_all(of).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_written_is_named_and_waited_for() {
    let _shared = shared().await;
    let mut site = Site::new().await;
    site.feed(10).await;
    let allow =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    // An administrator may write everywhere, unless that is taken from him.
    let start = || match is_root() {
        true => {
            let without = "--bounding-set=-dac_override,-dac_read_search";
            site.run_by(Command::new("setpriv").arg(without))
        }
        false => site.run(),
    };
    fs::create_dir(site.state()).unwrap();
    allow(&site.state(), 0o555);
    start().refused("state.redb: it cannot be written; let the daemon read and write it").await;
    allow(&site.state(), 0o755);
    let daemon = start();
    assert_eq!(site.others_beside_last(10, &daemon).await, 0);
    daemon.stop().await;
    allow(&site.database(), 0o444);
    start().refused("state.redb: it cannot be written; let the daemon read and write it").await;
    allow(&site.database(), 0o644);
    let daemon = start();
    site.feed(10).await;
    assert_eq!(site.others_beside_last(10, &daemon).await, 0, "{}", daemon.log());
    daemon.stop().await;
}

/// A change of the file, by name.
type Change = (&'static str, fn(&mut Vec<u8>));

/// Bytes that look like chance.
fn noise(bytes: &mut [u8]) {
    let mut state = 7_u64;
    for byte in bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        *byte = (state >> 56) as u8;
    }
}

const CHANGES: [Change; 10] = [
    ("is empty", |file| file.clear()),
    ("ends in its name", |file| file.truncate(5)),
    ("ends in its header", |file| file.truncate(200)),
    ("ends behind its header", |file| file.truncate(8192)),
    ("ends in its middle", |file| file.truncate(file.len() / 2)),
    ("lacks a byte", |file| file.truncate(file.len() - 1)),
    ("has noise at its end", |file| {
        let half = file.len() / 2;
        noise(&mut file[half..]);
    }),
    ("has noise behind its header", |file| noise(&mut file[4096..])),
    ("is of another version", |file| file[64] = 200),
    ("is another program's", |file| file[..16].copy_from_slice(b"SQLite format 3\0")),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_file_is_repaired_or_refused_and_nothing_is_lost() {
    let _shared = shared().await;
    let torn = CHANGES.into_iter().enumerate().map(async |(number, (how, change))| {
        let mut site = Site::new().await;
        let mut daemon = site.run();
        site.feed(10).await;
        assert_eq!(site.others_beside_last(10, &daemon).await, 0);
        if number.is_multiple_of(2) {
            daemon.stop().await;
        } else {
            drop(daemon);
        }
        let mut bytes = fs::read(site.database()).unwrap();
        change(&mut bytes);
        fs::write(site.database(), bytes).unwrap();
        site.feed(10).await;
        daemon = site.run();
        // Either it says so and ends, or it goes on.
        let until = Instant::now() + PATIENCE;
        let is_refused = loop {
            let log = daemon.log();
            match (daemon.child.try_wait().unwrap(), log.contains("configuration read")) {
                (Some(_), _) => break true,
                (None, true) => break false,
                (None, false) => sleep(LOOK_EVERY).await,
            }
            assert!(Instant::now() < until, "{how}: {}", daemon.log());
        };
        println!("a file that {how} is {}", if is_refused { "refused" } else { "repaired" });
        if is_refused {
            let version = how.contains("version");
            daemon
                .refused(if version {
                    "run the version that wrote it"
                } else {
                    "it is damaged; put a copy back"
                })
                .await;
            // As it says.
            fs::rename(site.database(), site.state().join("aside")).unwrap();
            daemon = site.run();
        }
        // Without its state it reads the hub from its beginning, and knows nothing of before.
        let others = site.others_beside_last(10, &daemon).await;
        assert!(others <= 10, "{how}: {others} others");
        daemon.stop().await;
        is_refused
    });
    let refused = join_all(torn).await.into_iter().filter(|is_refused| *is_refused).count();
    assert!(refused >= 6, "{refused} were refused");
}

/// Shifts the clock on the wall, and no other, by the seconds that a file holds.
const SHIFTED: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>

static long long shift(void) {
    static volatile long long *at;
    if (!at) at = mmap(0, 8, PROT_READ, MAP_SHARED, open(getenv("CLOCK_SHIFT"), O_RDONLY), 0);
    return *at;
}

int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(id, now);
    if (!failed && id == CLOCK_REALTIME) now->tv_sec += shift();
    return failed;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec exact;
    int failed = clock_gettime(CLOCK_REALTIME, &exact);
    now->tv_sec = exact.tv_sec;
    now->tv_usec = exact.tv_nsec / 1000;
    return failed;
}

time_t time(time_t *now) {
    struct timespec exact;
    clock_gettime(CLOCK_REALTIME, &exact);
    if (now) *now = exact.tv_sec;
    return exact.tv_sec;
}
"#;

const DAY_S: i64 = 86_400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_is_set_a_day_forth_and_back_loses_nothing_and_forgets_as_it_says() {
    let _shared = shared().await;
    let mut site = Site::new().await;
    let of = |name: &str| site.dir.path().join(name);
    let (code, library, shift) = (of("clock.c"), of("clock.so"), of("shift"));
    fs::write(&code, SHIFTED).unwrap();
    let [code, library, seconds] =
        [&code, &library, &shift].map(|path| path.to_str().unwrap().to_owned());
    // Whatever links Rust is here.
    run("cc", &["-shared", "-fPIC", "-o", &library, &code, "-ldl"]);
    fs::write(&shift, 0_i64.to_ne_bytes()).unwrap();
    // In its place: the daemon has it in its memory.
    let shift = fs::File::options().write(true).open(shift).unwrap();
    let (mut daemon, mut before) = (None, None);
    for (step, days) in [0, 1, -1, 0, -1, 1].into_iter().enumerate() {
        shift.write_all_at(&(days * DAY_S).to_ne_bytes(), 0).unwrap();
        // At first while it runs, then while it does not.
        if step == 0 || step > 3 {
            if let Some(daemon) = daemon.take() {
                Daemon::stop(daemon).await;
            }
            let command = &mut Command::new("env");
            command.env("LD_PRELOAD", &library).env("CLOCK_SHIFT", &seconds);
            daemon = Some(site.run_by(command));
        }
        let daemon = daemon.as_ref().unwrap();
        // What comes once more is known for an hour, by the clock: forth it is forgotten early, back
        // it is not forgotten.
        if let Some(before) = before.replace(days) {
            site.feed_again(10).await;
            if days > before {
                let others = site.others_beside_last(10, daemon).await;
                assert_eq!(others, 0, "after {days} days: {}", daemon.log());
            }
        }
        // With any of those that were known after all.
        site.feed(10).await;
        let others = site.others_beside_last(10, daemon).await;
        assert_eq!(others, 0, "after {days} days: {}", daemon.log());
    }
    let daemon = daemon.unwrap();
    let tomorrow = (OffsetDateTime::now_utc() + Duration::from_secs(86_400)).date().to_string();
    assert!(daemon.log().contains(&tomorrow), "its clock was never set: {}", daemon.log());
    daemon.stop().await;
}
