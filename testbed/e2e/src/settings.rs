//! What the environment says.

use std::{path::PathBuf, sync::LazyLock};

/// The settings of this process.
pub static SETTINGS: LazyLock<Settings> = LazyLock::new(Settings::read);

/// Where things are.
#[derive(Debug)]
pub struct Settings {
    /// The program `helm` (`PEERNET_HELM`).
    pub helm: String,
    /// The program `kubectl` (`PEERNET_KUBECTL`).
    pub kubectl: String,
    /// The script that cuts power and links (`PEERNET_TESTBED`); none on a cluster that is not ours to break.
    pub testbed: Option<PathBuf>,
    /// Image of the operator (`PEERNET_OPERATOR_IMAGE`).
    pub operator_image: Image,
    /// Image of the agents (`PEERNET_NODE_IMAGE`).
    pub node_image: Image,
    /// Image with `yardstick` and `hostile-agent` (`PEERNET_TOOL_IMAGE`), if the cluster has it.
    pub tool_image: Option<Image>,
    /// Where `testbed/interop/install` has put the programs of others (`PEERNET_INTEROP`), if it has.
    pub interop: Option<PathBuf>,
    /// The checkout.
    pub checkout: PathBuf,
}

/// An image, as the chart wants it: in two parts.
#[derive(Clone, Debug)]
pub struct Image {
    /// What stands before the tag.
    pub repository: String,
    /// The tag.
    pub tag: String,
}

impl Image {
    fn parse(text: &str) -> Self {
        let (repository, tag) = text.rsplit_once(':').unwrap_or((text, "latest"));
        Self {
            repository: repository.to_owned(),
            tag: tag.to_owned(),
        }
    }

    /// Both parts together.
    #[must_use]
    pub fn name(&self) -> String {
        format!("{}:{}", self.repository, self.tag)
    }
}

impl Settings {
    fn read() -> Self {
        let text = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let image =
            |name: &str, otherwise: &str| Image::parse(&text(name).unwrap_or_else(|| otherwise.to_owned()));
        let version = peernet_api::VERSION;
        Self {
            helm: text("PEERNET_HELM").unwrap_or_else(|| "helm".to_owned()),
            kubectl: text("PEERNET_KUBECTL").unwrap_or_else(|| "kubectl".to_owned()),
            testbed: text("PEERNET_TESTBED").map(PathBuf::from),
            operator_image: image("PEERNET_OPERATOR_IMAGE", &format!("peernet/operator:{version}")),
            node_image: image("PEERNET_NODE_IMAGE", &format!("peernet/node:{version}")),
            tool_image: text("PEERNET_TOOL_IMAGE").map(|name| Image::parse(&name)),
            interop: text("PEERNET_INTEROP").map(PathBuf::from),
            checkout: PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../..")),
        }
    }
}
