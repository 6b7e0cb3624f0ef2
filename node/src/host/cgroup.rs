//! The agent's own control group, of either version: where it tells of throttling, and what it says. Pure.
//!
//! A container sees its own group only, in one of three ways: with a cgroup namespace its path is `/` and the mount's
//! root is its group; without one its path is that of the host, and a mount's root (the fourth field of `mountinfo`)
//! says which part of that path is mounted; or the whole hierarchy is mounted. A limit on the group above it, such as
//! that of a whole pod, can't be seen from inside.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt,
    path::{Path, PathBuf},
    time::Duration,
};

/// How long and how often a group was kept from running, since it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Throttling {
    pub(super) time: Duration,
    pub(super) periods: u64,
}

/// Where `cpu.stat` of the own group is, by `/proc/self/cgroup` and `/proc/self/mountinfo`.
pub(super) fn cpu_stat(groups: &str, mounts: &str) -> Option<PathBuf> {
    Some(directory(groups, mounts, "cpu")?.1.join("cpu.stat"))
}

/// Where the own group's limit of memory is.
pub(super) fn memory_limit(groups: &str, mounts: &str) -> Option<PathBuf> {
    let (version, directory) = directory(groups, mounts, "memory")?;
    Some(directory.join(match version {
        Version::V1 => "memory.limit_in_bytes",
        Version::V2 => "memory.max",
    }))
}

/// What a limit of memory says, in bytes; `None` if there is none. Version 1 writes that as the largest number of pages.
pub(super) fn bytes(limit: &str) -> Option<u64> {
    limit.trim().parse().ok().filter(|bytes| *bytes < 1 << 60)
}

/// The own group as far as a controller is concerned: the version of its hierarchy, and where it is mounted.
fn directory(groups: &str, mounts: &str, controller: &str) -> Option<(Version, PathBuf)> {
    let own = own_group(groups, controller)?;
    let mount = mounts
        .lines()
        .filter_map(Mount::parse)
        .find(|mount| mount.holds(own.version, controller))?;
    Some((own.version, mount.directory(Path::new(own.path))?))
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

struct Group<'a> {
    version: Version,
    path: &'a str,
}

/// The group that a controller limits: that of version 1 where the controller is there.
fn own_group<'a>(groups: &'a str, wanted: &str) -> Option<Group<'a>> {
    let mut unified = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':');
        let (Some(hierarchy), Some(controllers), Some(path)) = (fields.next(), fields.next(), fields.next())
        else {
            continue;
        };
        if controllers.split(',').any(|controller| controller == wanted) {
            return Some(Group {
                version: Version::V1,
                path,
            });
        }
        if hierarchy == "0" && controllers.is_empty() {
            unified = Some(Group {
                version: Version::V2,
                path,
            });
        }
    }
    unified
}

/// One line of `mountinfo` ([proc_pid_mountinfo(5)](https://man7.org/linux/man-pages/man5/proc_pid_mountinfo.5.html)).
struct Mount<'a> {
    root: PathBuf,
    point: PathBuf,
    kind: &'a str,
    options: &'a str,
}

impl<'a> Mount<'a> {
    fn parse(line: &'a str) -> Option<Self> {
        let (mount, system) = line.split_once(" - ")?;
        let mut mount = mount.split(' ').skip(3);
        let (root, point) = (mount.next()?, mount.next()?);
        let mut system = system.split(' ');
        Some(Self {
            root: unescaped(root),
            point: unescaped(point),
            kind: system.next()?,
            options: system.nth(1)?,
        })
    }

    fn holds(&self, version: Version, controller: &str) -> bool {
        match version {
            Version::V1 => {
                self.kind == "cgroup" && self.options.split(',').any(|option| option == controller)
            }
            Version::V2 => self.kind == "cgroup2",
        }
    }

    /// Where the group of this path is mounted.
    fn directory(&self, group: &Path) -> Option<PathBuf> {
        if let Ok(below) = group.strip_prefix(&self.root) {
            return Some(self.point.join(below));
        }
        // In a cgroup namespace, the root of a mount that was made outside of it is written as `/..`.
        (group == Path::new("/")).then(|| self.point.clone())
    }
}

/// The kernel writes space, tab, newline and backslash as octal numbers.
fn unescaped(text: &str) -> PathBuf {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        bytes.extend(before.as_bytes());
        let code = after.get(..3).and_then(|code| u8::from_str_radix(code, 8).ok());
        rest = match code {
            Some(code) => {
                bytes.push(code);
                after.get(3..).unwrap_or_default()
            }
            None => {
                bytes.push(b'\\');
                after
            }
        };
    }
    bytes.extend(rest.as_bytes());
    PathBuf::from(OsString::from_vec(bytes))
}

/// What `cpu.stat` says: `throttled_time` in nanoseconds in version 1, `throttled_usec` in version 2. `None` if the
/// group can't be limited, like version 2's root.
pub(super) fn throttling(cpu_stat: &str) -> Option<Throttling> {
    let (mut time, mut periods) = (None, None);
    for line in cpu_stat.lines() {
        let Some((name, value)) = line.split_once(' ') else {
            continue;
        };
        let number = value.trim().parse().ok();
        match name {
            "throttled_time" => time = number.map(Duration::from_nanos),
            "throttled_usec" => time = number.map(Duration::from_micros),
            "nr_throttled" => periods = number,
            _ => {}
        }
    }
    Some(Throttling {
        time: time?,
        periods: periods?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(groups: &str, mounts: &str) -> Option<String> {
        cpu_stat(groups, mounts).map(|path| path.to_str().unwrap().to_owned())
    }

    #[test]
    fn a_container_of_version_2_with_a_namespace_sees_its_group_as_the_root() {
        let mounts = "\
1243 1136 0:139 / / rw,relatime master:448 - overlay overlay rw,lowerdir=/var/lib
1244 1243 0:146 / /proc rw,nosuid,nodev,noexec,relatime - proc proc rw
1247 1243 0:143 / /sys ro,nosuid,nodev,noexec,relatime - sysfs sysfs ro
1248 1247 0:27 / /sys/fs/cgroup ro,nosuid,nodev,noexec,relatime - cgroup2 cgroup rw,nsdelegate,memory_recursiveprot
";
        assert_eq!(
            found("0::/\n", mounts).as_deref(),
            Some("/sys/fs/cgroup/cpu.stat")
        );
        // The mount was made before the namespace.
        let outer = mounts.replace("0:27 / /sys/fs/cgroup", "0:27 /../.. /sys/fs/cgroup");
        assert_eq!(
            found("0::/\n", &outer).as_deref(),
            Some("/sys/fs/cgroup/cpu.stat")
        );
    }

    #[test]
    fn a_container_of_version_1_finds_its_part_of_the_path() {
        let groups = "\
12:pids:/kubepods/burstable/pod0e6b/6d2a
4:cpu,cpuacct:/kubepods/burstable/pod0e6b/6d2a
1:name=systemd:/kubepods/burstable/pod0e6b/6d2a
0::/system.slice/containerd.service
";
        let mounts = "\
780 779 0:68 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime - tmpfs tmpfs rw,mode=755
781 780 0:29 /kubepods/burstable/pod0e6b/6d2a /sys/fs/cgroup/systemd ro,nosuid master:11 - cgroup cgroup rw,xattr,name=systemd
784 780 0:34 /kubepods/burstable/pod0e6b/6d2a /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:18 - cgroup cgroup rw,cpu,cpuacct
";
        let expected = Some("/sys/fs/cgroup/cpu,cpuacct/cpu.stat");
        assert_eq!(found(groups, mounts).as_deref(), expected);
        // A group of its own below the mounted one.
        let below = groups.replace("pod0e6b/6d2a\n1", "pod0e6b/6d2a/init\n1");
        assert_eq!(
            found(&below, mounts).as_deref(),
            Some("/sys/fs/cgroup/cpu,cpuacct/init/cpu.stat")
        );
    }

    #[test]
    fn on_a_host_the_whole_hierarchy_is_mounted() {
        // Version 1 with the CPU controller alone on its hierarchy, and version 2 beside it without one.
        let mounts = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let groups = "2:cpuacct:/a\n1:cpu:/agents/one\n0::/b\n";
        assert_eq!(
            found(groups, mounts).as_deref(),
            Some("/sys/fs/cgroup/cpu/agents/one/cpu.stat")
        );
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
        assert_eq!(
            found("0::/system.slice/peernet.service\n", unified).as_deref(),
            Some("/sys/fs/cgroup/system.slice/peernet.service/cpu.stat")
        );
        let spaced = "30 23 0:26 / /mnt/my\\040groups\\134x rw - cgroup2 cgroup2 rw\n";
        assert_eq!(
            found("0::/a\n", spaced).as_deref(),
            Some("/mnt/my groups\\x/a/cpu.stat")
        );
    }

    #[test]
    fn the_limit_of_memory_is_that_of_the_own_group() {
        let mounts = "\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
33 31 0:30 /pods/a /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";
        let path = memory_limit("2:memory:/pods/a\n1:cpu:/agents/one\n0::/b\n", mounts);
        assert_eq!(
            path.unwrap().to_str(),
            Some("/sys/fs/cgroup/memory/memory.limit_in_bytes")
        );
        let path = memory_limit("0::/b\n", mounts);
        assert_eq!(
            path.unwrap().to_str(),
            Some("/sys/fs/cgroup/unified/b/memory.max")
        );
        assert_eq!(bytes("67108864\n"), Some(64 << 20));
        for none in ["max\n", "9223372036854771712\n", ""] {
            assert_eq!(bytes(none), None, "{none:?}");
        }
    }

    #[test]
    fn a_group_that_is_not_mounted_is_not_guessed() {
        let elsewhere = "30 23 0:26 /other /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        assert_eq!(found("0::/mine\n", elsewhere), None);
        assert_eq!(found("0::/\n", ""), None);
        assert_eq!(found("", elsewhere), None);
        assert_eq!(found("garbage\n:::\n", "garbage - x\n"), None);
    }

    #[test]
    fn both_versions_tell_their_throttling() {
        let v1 = "nr_periods 8761\nnr_throttled 93\nthrottled_time 4810423557\n";
        let v2 = "usage_usec 24052713\nuser_usec 15098721\nsystem_usec 8953992\ncore_sched.force_idle_usec 0\n\
                  nr_periods 1041\nnr_throttled 93\nthrottled_usec 4810423\nnr_bursts 0\nburst_usec 0\n";
        let expected = |nanos| {
            Some(Throttling {
                time: Duration::from_nanos(nanos),
                periods: 93,
            })
        };
        assert_eq!(throttling(v1), expected(4_810_423_557));
        assert_eq!(throttling(v2), expected(4_810_423_000));
        // The root of version 2 has no limit, and says nothing of one.
        assert_eq!(throttling("usage_usec 1\nuser_usec 1\nsystem_usec 0\n"), None);
        assert_eq!(throttling("nr_throttled x\nthrottled_usec 1\n"), None);
    }
}
