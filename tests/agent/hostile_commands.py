"""What somebody who stole the controller's key would try to run; ``CANARY`` is replaced by a file's path."""

from __future__ import annotations

_PAYLOADS = ["id", "touch CANARY", "/bin/sh -c 'touch CANARY'", 'python3 -c \'open("CANARY","w")\'']
_JOINTS = [
    *(";", " ; ", "&&", " && ", "||", " || ", "|", " | ", "&", " & ", "\n", "\r", "\r\n", "\v", "\f", "\t"),
    *("\u2028", "\u0085", " -- ", " --pretty;", " --pretty\n", " --pretty "),
]
_WRAPPED = [
    *("$({})", "`{}`", "${{IFS}}{}", "report $({})", "report `{}`", "report --pretty=$({})", "report <({})"),
    *("report >({})", "'{}'", '"{}"', "report '{}'", 'report "{}"', "({})", "{{ {}; }}", "! {}", "exec {}"),
    *(
        "eval {}",
        "sudo {}",
        "sudo -n {}",
        "env {}",
        "nohup {}",
        "timeout 1 {}",
        "sh -c '{}'",
        "bash -lc '{}'",
    ),
]
_PLAIN = [
    *(
        "",
        " ",
        "\n",
        "\t",
        "sh",
        "bash",
        "-sh",
        "/bin/sh",
        "/bin/bash -i",
        "python3",
        "python3 -i",
        "id",
        "ls",
    ),
    *(
        "internal-sftp",
        "/usr/lib/openssh/sftp-server",
        "sftp",
        "scp -t /tmp",
        "scp -f /etc/shadow",
        "scp -r -t .",
    ),
    *("rsync --server -e.LsfxC . /", "git-upload-pack '/x'", "tar -xC /", "dd of=CANARY", "tee CANARY"),
    *(
        "cat /etc/shadow",
        "cat ~/.ssh/authorized_keys",
        "echo x >> ~/.ssh/authorized_keys",
        "reboot",
        "poweroff",
    ),
    *(
        "systemctl suspend",
        "suspend",
        "caps",
        "suspend --now",
        "caps 100",
        "report suspend",
        "version report",
    ),
    *(
        "REPORT",
        "Report",
        "rEPORT",
        "report\x00",
        "report ",
        " report",
        "report  --pretty",
        "report\t--pretty",
    ),
    *("report --pretty ", "report --pretty --pretty", "report --pretty=1", "report -p", "report --PRETTY"),
    *(
        "report --watch",
        "report --help",
        "report --forced",
        "report --version",
        "version --pretty",
        "version ",
    ),
    *(
        "--forced",
        "--forced report",
        "--version",
        "-h",
        "--help",
        "-c 'import os'",
        "-m pdb",
        "-i",
        "-",
        "--",
    ),
    *("report --", "report -", "report =", "report >CANARY", "report > CANARY", "report >>CANARY"),
    *(
        "report 2>CANARY",
        "report <CANARY",
        "report >|CANARY",
        "report &>CANARY",
        "report <<EOF\nEOF",
        "report #",
    ),
    *(
        "report *",
        "report ?",
        "report ~",
        "report $HOME",
        "report ${PATH}",
        "report !!",
        "report !-1",
        "report \\",
    ),
    *(
        "report\\\n",
        "re\\port",
        're""port',
        "r'e'port",
        "report;",
        "report&",
        "report|",
        "report%0aid",
        "report%00",
    ),
    *("../report", "./report", "/report", "../../bin/sh", "report/../../bin/sh", "report ../../etc/passwd"),
    *(
        "/usr/local/lib/labctl/agent.pyz report",
        "/usr/local/lib/labctl/../../../../bin/sh",
        "agent.pyz suspend",
    ),
    *("LD_PRELOAD=CANARY report", "PATH=. report", "PYTHONPATH=/tmp report", "PYTHONSTARTUP=CANARY report"),
    *("PYTHONINSPECT=1 report", "env -i report", "BASH_ENV=CANARY report", "ENV=CANARY sh", "IFS=r report"),
    *(
        "ｒｅｐｏｒｔ",
        "rеport",
        "report\u200b",
        "\ufeffreport",
        "report\u202e",
        "rep\u00adort",
        "ʀeport",
        "reporţ",
    ),
    *("report\u00a0--pretty", "report\u3000--pretty", "report —pretty", "report ‐‐pretty", "🙂", "report 🙂"),
    *(
        "A" * 200,
        "report " + "-" * 200,
        "report" * 1000,
        "report " * 500,
        "--pretty " * 100,
        "report --" + "a" * 99,
    ),
    *(
        "%s%s%s%n",
        "{0.__class__}",
        "{{7*7}}",
        "${jndi:ldap://x}",
        "' OR 1=1 --",
        "<script>",
        "__import__('os')",
    ),
    *("\x1b[2Jreport", "\x07", "report\x1b[0m", "report\x7f", "report\x08", "\x01report", "re\x0dport"),
    *(
        "report --pretty;touch CANARY",
        "report --pretty|touch CANARY",
        "version;touch CANARY",
        "version\ntouch CANARY",
    ),
]

HOSTILE: tuple[str, ...] = tuple(
    dict.fromkeys(
        text.replace("\x00", "")
        for text in [
            *_PLAIN,
            *(f"report{joint}{payload}" for joint in _JOINTS for payload in _PAYLOADS),
            *(form.format(payload) for form in _WRAPPED for payload in _PAYLOADS[:2]),
        ]
        if text.replace("\x00", "") not in ("report", "report --pretty", "version")
    )
)
