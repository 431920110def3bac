"""WireServer as its clients see it: versions, goal state, shared config, health and telemetry.

Sources: the shape of an error (Error, Code, Message, Details) and the 410's words from waagent logs that people
published; the versions from published `curl http://168.63.129.16/?comp=versions`; the documents' elements from what
public agents read of them (GoalState, SharedConfig). The codes and sentences of the 400s, of 404 and 405 are ours:
no public source shows them.
"""

from __future__ import annotations

from collections.abc import Callable

from harness.lab.http import Headers, Response
from harness.lab.service import READ, Answer, Call, Route, Service, date_header, xml_answer
from harness.msp.endpoints import WIRESERVER

PREFERRED = "2015-04-05"
# fmt: off
VERSIONS = [
    "2015-04-05", "2012-11-30", "2012-09-15", "2012-05-15", "2011-12-31", "2011-10-15", "2011-08-31", "2011-04-07",
    "2010-12-15", "2010-28-10",
]
# fmt: on
SPOKEN = ("2012-11-30", "2015-04-05")
"""The versions that a goal state is given for; the others are listed by the service and used by no agent of today."""

CONTAINER = "8d1a6b52-9c0e-4a53-9a0f-6f7c1c2d3e40"
INSTANCE = "b5f2e0b8-54a1-4a84-8f2c-0d9f6f0d1a77._msp-lab"
INCARNATION = "1"

_XMLNS = 'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xmlns:xsd="http://www.w3.org/2001/XMLSchema"'


def _url(type_: str) -> str:
    return (
        f"http://{WIRESERVER.address}:{WIRESERVER.port}/machine/{CONTAINER}/{INSTANCE}"
        f"?comp=config&amp;type={type_}&amp;incarnation={INCARNATION}"
    )


VERSIONS_XML = (
    "<Versions>\n  <Preferred>\n    <Version>"
    + PREFERRED
    + "</Version>\n  </Preferred>\n  <Supported>\n"
    + "".join(f"    <Version>{version}</Version>\n" for version in VERSIONS)
    + "  </Supported>\n</Versions>"
)

GOAL_STATE_XML = f"""\
<GoalState {_XMLNS} xsi:noNamespaceSchemaLocation="goalstate10.xsd">
  <Version>{SPOKEN[0]}</Version>
  <Incarnation>{INCARNATION}</Incarnation>
  <Machine>
    <ExpectedState>Started</ExpectedState>
    <StopRolesDeadlineHint>300000</StopRolesDeadlineHint>
    <LBProbePorts>
      <Port>16001</Port>
    </LBProbePorts>
    <ExpectHealthReport>FALSE</ExpectHealthReport>
  </Machine>
  <Container>
    <ContainerId>{CONTAINER}</ContainerId>
    <RoleInstanceList>
      <RoleInstance>
        <InstanceId>{INSTANCE}</InstanceId>
        <State>Started</State>
        <Configuration>
          <HostingEnvironmentConfig>{_url("hostingEnvironmentConfig")}</HostingEnvironmentConfig>
          <SharedConfig>{_url("sharedConfig")}</SharedConfig>
          <ExtensionsConfig>{_url("extensionsConfig")}</ExtensionsConfig>
          <FullConfig>{_url("fullConfig")}</FullConfig>
          <ConfigName>msp-lab.1.xml</ConfigName>
        </Configuration>
      </RoleInstance>
    </RoleInstanceList>
  </Container>
</GoalState>"""

SHARED_CONFIG_XML = f"""\
<SharedConfig version="1.0.0.0" goalStateIncarnation="{INCARNATION}">
  <Deployment name="msp-lab" guid="{{3f1c2f6e-0000-4000-8000-000000000001}}" incarnation="0">
    <Service name="msp-lab" guid="{{00000000-0000-0000-0000-000000000000}}" />
    <ServiceInstance name="msp-lab.0" guid="{{3f1c2f6e-0000-4000-8000-000000000002}}" />
  </Deployment>
  <Incarnation number="1" instance="{INSTANCE}" guid="{{3f1c2f6e-0000-4000-8000-000000000003}}" />
  <Role guid="{{3f1c2f6e-0000-4000-8000-000000000004}}" name="msp-lab" settleTimeSeconds="0" />
  <LoadBalancerSettings timeoutSeconds="0" waitLoadBalancerProbeCount="0">
    <Probes />
  </LoadBalancerSettings>
  <OutputEndpoints />
  <Instances>
    <Instance id="{INSTANCE}" address="10.0.0.4">
      <FaultDomains randomId="0" updateId="0" updateCount="0" />
      <InputEndpoints />
    </Instance>
  </Instances>
</SharedConfig>"""

HOSTING_XML = f"""\
<HostingEnvironmentConfig version="1.0.0.0" goalStateIncarnation="{INCARNATION}">
  <Deployment name="msp-lab" guid="{{3f1c2f6e-0000-4000-8000-000000000001}}" incarnation="0" />
  <Incarnation number="1" instance="{INSTANCE}" guid="{{3f1c2f6e-0000-4000-8000-000000000003}}" />
  <Role guid="{{3f1c2f6e-0000-4000-8000-000000000004}}" name="msp-lab" />
</HostingEnvironmentConfig>"""

EXTENSIONS_XML = '<Extensions version="1.0.0.0" goalStateIncarnation="1">\n  <Plugins />\n</Extensions>'

CONFIGS = {
    "sharedconfig": SHARED_CONFIG_XML,
    "hostingenvironmentconfig": HOSTING_XML,
    "extensionsconfig": EXTENSIONS_XML,
    "fullconfig": SHARED_CONFIG_XML,
}


def _headers() -> Headers:
    return (("Server", "Microsoft-IIS/10.0"), date_header())


def error(status: int, code: str, message: str, headers: Headers = ()) -> Response:
    """The service's own error body; code and message must be XML already."""
    lines = (f"<Code>{code}</Code>", f"<Message>{message}</Message>", "<Details></Details>")
    return xml_answer(status, f"<Error {_XMLNS}>\n    " + "\n    ".join(lines) + "\n</Error>", headers)


def _versioned(answer: Callable[[Call], Response]) -> Answer:
    def guarded(call: Call) -> Response:
        version = call.header("x-ms-version")
        if version is None:
            return error(400, "MissingRequiredHeader", "The required header x-ms-version is missing.")
        if version.strip() not in SPOKEN:
            return error(400, "InvalidHeaderValue", "The value of the header x-ms-version is not supported.")
        return answer(call)

    return guarded


def _config(call: Call) -> Response:
    if call.query.get("incarnation", INCARNATION) != INCARNATION:
        return error(
            410, "ResourceNotAvailable", "The resource requested is no longer available. Please refresh your cache."
        )
    document = CONFIGS.get(call.query.get("type", "").lower())
    return xml_answer(200, document) if document else _not_found(call)


def is_health(target: str) -> bool:
    """Whether a request of this target is a report of the machine's health."""
    path, _, query = target.lower().partition("?")
    return path.rstrip("/").endswith("/machine") and "comp=health" in query.split("&")


def _accepted(call: Call) -> Response:
    return Response(200)


def _not_found(call: Call) -> Response:
    if call.path.rstrip("/").lower() in ("", "/machine"):
        return error(400, "InvalidQueryParameterValue", "The query parameter comp is missing or has an unknown value.")
    return error(404, "ResourceNotFound", "The specified resource does not exist.")


def _not_allowed(call: Call, methods: tuple[str, ...]) -> Response:
    return error(
        405, "UnsupportedHttpVerb", "The resource does not support this verb.", (("Allow", ", ".join(methods)),)
    )


SERVICE = Service(
    WIRESERVER,
    routes=(
        Route(READ, "/", lambda call: xml_answer(200, VERSIONS_XML), {"comp": "versions"}),
        Route(READ, "/machine", _versioned(lambda call: xml_answer(200, GOAL_STATE_XML)), {"comp": "goalstate"}),
        Route(READ, "/machine/*", _versioned(_config), {"comp": "config"}),
        Route(("POST",), "/machine", _versioned(_accepted), {"comp": "health"}),
        Route(("POST",), "/machine", _versioned(_accepted), {"comp": "roleproperties"}),
        Route(("POST",), "/machine", _versioned(_accepted), {"comp": "telemetrydata"}),
    ),
    not_found=_not_found,
    not_allowed=_not_allowed,
    headers=_headers,
)
